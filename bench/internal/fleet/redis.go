package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// redisServer is a Redis of our own, set up as docs/redis.md recommends.
type redisServer struct {
	*process
	socket string
}

func startRedis(ctx context.Context, dir string) (*redisServer, error) {
	r := &redisServer{socket: filepath.Join(dir, "redis.sock")}
	cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", r.socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
		"--tracking-table-max-keys", "100000", "--loglevel", "warning")
	var err error
	r.process, err = start(ctx, dir, "redis", cmd, func() bool {
		_, err := r.usedMemory()
		return err == nil
	})
	return r, err
}

func (r *redisServer) url() string { return "unix://" + r.socket }

// usedMemory returns what the data takes in the server's memory, in bytes.
func (r *redisServer) usedMemory() (int64, error) {
	conn, err := net.DialTimeout("unix", r.socket, time.Second)
	if err != nil {
		return 0, fmt.Errorf("asking Redis for its memory: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, "INFO memory\r\nQUIT\r\n"); err != nil {
		return 0, fmt.Errorf("asking Redis for its memory: %w", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return 0, fmt.Errorf("asking Redis for its memory: %w", err)
	}
	for line := range strings.Lines(string(answer)) {
		if number, ok := strings.CutPrefix(line, "used_memory_dataset:"); ok {
			return strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, errors.New("asking Redis for its memory: it does not tell")
}
