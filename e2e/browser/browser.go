// Package browser drives a real Chromium for the tests.
package browser

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// actionLimit bounds each action of the browser, on a busy machine.
const actionLimit = 180 * time.Second

// Path returns the browser's executable.
func Path() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium found in PATH")
}

// A Browser is a running Chromium with an empty profile.
type Browser struct {
	ctx context.Context
}

// A Setting is a choice of the browser's user.
type Setting func(testing.TB) chromedp.ExecAllocatorOption

// BlockThirdPartyCookies makes the browser block the cookies of other sites in a page, unless they are partitioned.
func BlockThirdPartyCookies(t testing.TB) chromedp.ExecAllocatorOption {
	t.Helper()
	// 1 is CookieControlsMode::kBlockThirdParty.
	return preferences(t, `{"profile":{"cookie_controls_mode":1,"block_third_party_cookies":true}}`)
}

// AllowThirdPartyCookies makes the browser send and take the cookies of other sites in a page. Without it, the default of
// the installed Chromium decides.
func AllowThirdPartyCookies(t testing.TB) chromedp.ExecAllocatorOption {
	t.Helper()
	// 0 is CookieControlsMode::kOff.
	return preferences(t, `{"profile":{"cookie_controls_mode":0,"block_third_party_cookies":false}}`)
}

// preferences lets the browser use a new profile with preferences in JSON.
func preferences(t testing.TB, text string) chromedp.ExecAllocatorOption {
	t.Helper()
	dir, err := os.MkdirTemp("", "chromium-profile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "Default"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Default", "Preferences"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return chromedp.UserDataDir(dir)
}

// Start runs a browser until the test ends and returns it with its first page.
//
// The browser resolves localhost only, so that no page can leave the machine.
func Start(t testing.TB, settings ...Setting) (*Browser, *Page) {
	t.Helper()
	path, err := Path()
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.WSURLReadTimeout(actionLimit), // Chromium starts slowly on a busy machine
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1"),
	)
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox does not work for root
	}
	for _, setting := range settings {
		options = append(options, setting(t))
	}
	// The browser must outlive the test's context: a failed test takes a screenshot in its cleanup.
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancelAllocator)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	return &Browser{ctx: ctx}, newPage(t, ctx)
}

// NewProfile opens a window without any cookie, in the same process. Its tabs share nothing with those of b.
func (b *Browser) NewProfile(t testing.TB) (*Browser, *Page) {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("opening a window: %v", err)
	}
	return &Browser{ctx: ctx}, newPage(t, ctx)
}

// NewPage opens another tab of the same profile.
func (b *Browser) NewPage(t testing.TB) *Page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	return newPage(t, ctx)
}

// Frame waits for a frame of another site whose URL begins with the prefix, and returns it when it has loaded. If the frame
// goes to another site, it has to be found again.
func (b *Browser) Frame(t testing.TB, prefix string) *Page {
	t.Helper()
	limited, cancel := context.WithTimeout(b.ctx, actionLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		infos, err := chromedp.Targets(limited)
		if err != nil {
			t.Fatalf("listing the frames: %v", err)
		}
		var urls []string
		for _, info := range infos {
			if info.Type != "iframe" {
				continue
			}
			if strings.HasPrefix(info.URL, prefix) {
				ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(info.TargetID))
				t.Cleanup(cancel)
				// The first action attaches to the frame for as long as its context lives.
				if err := chromedp.Do(ctx); err != nil {
					t.Fatalf("attaching to the frame: %v", err)
				}
				p := &Page{ctx: ctx}
				Eval[bool](t, p, `document.readyState === "complete" || new Promise(r => addEventListener("load", () => r(true)))`)
				return p
			}
			urls = append(urls, info.URL)
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			t.Fatalf("got frames %q, want one at %s", urls, prefix)
		}
	}
}

// Cookies returns all cookies of the profile.
func (b *Browser) Cookies(t testing.TB) []*network.Cookie {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, actionLimit)
	defer cancel()
	result, err := chromedp.CallBrowser(ctx, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: profileID(ctx)})
	if err != nil {
		t.Fatalf("reading the cookies: %v", err)
	}
	return result.Cookies
}

// Cookie returns the profile's cookie with the name, or nil.
func (b *Browser) Cookie(t testing.TB, name string) *network.Cookie {
	t.Helper()
	for _, c := range b.Cookies(t) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// DeleteCookies deletes all cookies of the profile, as the end of the browser and a day do.
func (b *Browser) DeleteCookies(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, actionLimit)
	defer cancel()
	if _, err := chromedp.Call(ctx, network.ClearBrowserCookies, cdp.Empty{}); err != nil {
		t.Fatalf("deleting the cookies: %v", err)
	}
}

// profileID returns the identifier of the profile, or "" for the first one.
func profileID(ctx context.Context) cdp.BrowserContextID {
	return chromedp.FromContext(ctx).BrowserContextID
}

// AllowCookies sets whether sites may use cookies, on Chromium's page of settings, as a user does. It opens a tab for that.
// Only the first profile of a browser has that page.
func (b *Browser) AllowCookies(t testing.TB, allow bool) {
	t.Helper()
	setting := "block"
	if allow {
		setting = "allow"
	}
	settings := b.NewPage(t)
	settings.Open(t, "chrome://settings/content/siteData")
	if !Eval[bool](t, settings, call(t, setCookiePolicy, setting)) {
		t.Fatalf("setting cookies to %s: Chromium kept the former setting", setting)
	}
}

// setCookiePolicy sends the message of the page of settings, and returns whether the setting has changed.
const setCookiePolicy = `async (setting) => {
	const { sendWithPromise } = await import('chrome://resources/js/cr.js');
	chrome.send('setDefaultValueForContentType', ['cookies', setting]);
	return (await sendWithPromise('getDefaultValueForContentType', 'cookies')).setting === setting;
}`

// newPage returns a page. A failed test logs the page's text and takes a screenshot, which `go test -artifacts` keeps.
func newPage(t testing.TB, ctx context.Context) *Page {
	p := &Page{ctx: ctx}
	if err := chromedp.Listen(ctx, p.noteRequest); err != nil {
		t.Fatalf("observing a tab: %v", err)
	}
	dir := t.ArtifactDir()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		limited, cancel := context.WithTimeout(ctx, actionLimit)
		defer cancel()
		view, err := chromedp.Run(limited, chromedp.Evaluate[string](`location.href + "\n" + document.documentElement.innerText`))
		if err != nil {
			t.Logf("reading the page: %v", err)
		}
		t.Logf("the browser shows %s", view)
		png, err := chromedp.Run(limited, chromedp.CaptureScreenshot())
		if err != nil {
			t.Logf("taking a screenshot: %v", err)
			return
		}
		f, err := os.CreateTemp(dir, "page-*.png")
		if err != nil {
			t.Logf("saving the screenshot: %v", err)
			return
		}
		defer f.Close()
		if _, err := f.Write(png); err != nil {
			t.Logf("saving the screenshot: %v", err)
			return
		}
		t.Logf("screenshot: %s", filepath.Base(f.Name()))
	})
	return p
}
