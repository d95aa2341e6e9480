package apps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// The account of Node-RED's own login.
const (
	NodeREDUser     = "admin"
	NodeREDPassword = "node-red-password"
)

// flows are a flow with a button, which sends a message to the debug sidebar.
const flows = `[{"id": "tab", "type": "tab", "label": "Flow"},
{"id": "button", "type": "inject", "z": "tab", "name": "button", "props": [{"p": "payload"}], "payload": "pressed", "payloadType": "str", "repeat": "", "x": 150, "y": 80, "wires": [["shown"]]},
{"id": "shown", "type": "debug", "z": "tab", "name": "shown", "active": true, "tosidebar": true, "complete": "payload", "targetType": "msg", "x": 350, "y": 80, "wires": []}]`

const adminAuth = `adminAuth: {
	type: "credentials",
	users: async (name) => name === %[1]q ? { username: name, permissions: "*" } : null,
	authenticate: async (name, password) => name === %[1]q && password === %[2]q ? { username: name, permissions: "*" } : null,
},`

// NodeRED starts Node-RED and returns its address. ownLogin turns on its own login (adminAuth).
func NodeRED(t testing.TB, ownLogin bool) string {
	t.Helper()
	program, err := nodeRED()
	if err != nil {
		t.Fatal(err)
	}
	login := ""
	if ownLogin {
		login = fmt.Sprintf(adminAuth, NodeREDUser, NodeREDPassword)
	}
	dir, port := t.TempDir(), proc.FreePort(t)
	settings := fmt.Sprintf(`module.exports = {
	uiHost: "127.0.0.1", uiPort: %d, userDir: %q, flowFile: "flows.json", credentialSecret: false,
	telemetry: { enabled: false, updateNotification: false }, editorTheme: { tours: false },
	externalModules: { palette: { allowInstall: false } },
	%s
}`, port, dir, login)
	for name, content := range map[string]string{"settings.js": settings, "flows.json": flows} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := proc.Start(t, "node-red", exec.Command("node", program, "--settings", filepath.Join(dir, "settings.js")))
	awaitOK(t, p, "http://"+address(port)+"/")
	return address(port)
}
