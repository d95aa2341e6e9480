package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
	"github.com/oauth-session/caddy-oauth-session/session/redis"
)

// opened is a store that was opened for measurement.
type opened struct {
	name  string
	store session.Store
	bytes func() (int64, error) // that its sessions take
	close func()
}

func openBolt(path string) (opened, error) {
	store, err := bolt.Open(path)
	if err != nil {
		return opened{}, err
	}
	return opened{
		name: "bolt", store: store,
		bytes: func() (int64, error) {
			info, err := os.Stat(path)
			if err != nil {
				return 0, err
			}
			return info.Size(), nil
		},
		close: func() { store.Close() },
	}, nil
}

// openRedis starts a server as docs/redis.md recommends it, on a socket.
func openRedis(dir string) (opened, error) {
	socket := filepath.Join(dir, "redis.sock")
	server := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--loglevel", "warning")
	if err := server.Start(); err != nil {
		return opened{}, fmt.Errorf("starting redis-server: %w", err)
	}
	end := func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	}
	var store *redis.Store
	err := errors.New("not tried")
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		store, err = redis.Open(redis.Config{URLs: []string{"unix://" + socket}})
	}
	if err != nil {
		end()
		return opened{}, err
	}
	empty, err := usedMemory(socket)
	if err != nil {
		end()
		return opened{}, err
	}
	return opened{
		name: "redis", store: store,
		bytes: func() (int64, error) {
			used, err := usedMemory(socket)
			return used - empty, err
		},
		close: func() { store.Close(); end() },
	}, nil
}

// usedMemory asks the server what its data takes.
func usedMemory(socket string) (int64, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "INFO memory\r\nQUIT\r\n"); err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(answer)) {
		if text, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
			return strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		}
	}
	return 0, errors.New("the server does not tell its memory")
}
