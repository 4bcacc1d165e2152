package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// browser is one Chromium that all tests share; each has a context, and with it cookies,
// of its own.
var browser struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}

func chromium() (string, error) {
	if path := os.Getenv("PENSTOCK_CHROMIUM"); path != "" {
		return path, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium is installed: run test/browser.sh")
}

func startBrowser(path string) {
	// As root, and in a container's small /dev/shm.
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("force-color-profile", "srgb"), chromedp.WSURLReadTimeout(patience), chromedp.WindowSize(1360, 900))
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, stop := chromedp.NewContext(alloc)
	browser.ctx, browser.stop = ctx, func() { stop(); stopAlloc() }
	browser.err = chromedp.Do(ctx)
}

// tab is one browser window, with the dialogs that scripts opened in it.
type tab struct {
	t       *testing.T
	g       *gateway
	ctx     context.Context
	mu      sync.Mutex
	dialogs []string
}

// newTab opens a window of its own. Without a browser the test is skipped, unless the real
// things are required.
func newTab(t *testing.T) *tab {
	t.Helper()
	path, err := chromium()
	if err != nil {
		if os.Getenv("PENSTOCK_REQUIRE_REAL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	g := theGateway(t)
	browser.once.Do(func() { startBrowser(path) })
	if browser.err != nil {
		t.Fatalf("start %s: %v", path, browser.err)
	}
	ctx, cancel := chromedp.NewContext(browser.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	b := &tab{t: t, g: g, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	err = chromedp.Listen(ctx, func(ev any) {
		if d, ok := ev.(*page.EventJavascriptDialogOpening); ok {
			b.mu.Lock()
			b.dialogs = append(b.dialogs, d.Message)
			b.mu.Unlock()
			// Not here: nothing may be asked of the browser while it is listened to.
			go func() {
				_, _ = chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
			}()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.look("light", 1360)
	t.Cleanup(func() {
		if t.Failed() {
			b.shoot("failed-"+strings.ReplaceAll(t.Name(), "/", "-"), false)
			said := g.said()
			t.Logf("the gateway said:\n%s", said[max(0, len(said)-3000):])
		}
	})
	return b
}

func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) open(path string) {
	b.t.Helper()
	b.run(chromedp.Navigate("http://" + b.g.admin + path))
}

// eval gives what a script finds; what a navigation interrupts is an error to try again.
func eval[T any](b *tab, script string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](script))
}

// until waits for a script to be true.
func (b *tab) until(what, script string) {
	b.t.Helper()
	err := wait(what, func() error {
		ok, err := eval[bool](b, "Boolean("+script+")")
		if err == nil && !ok {
			err = errors.New("not yet")
		}
		return err
	})
	if err != nil {
		text, _ := eval[string](b, "location.href + '\\n' + document.body.innerText")
		b.t.Fatalf("%v\nthe page is\n%.3000s", err, text)
	}
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func (b *tab) untilText(text string) {
	b.t.Helper()
	b.until("the page says "+text, "document.body.innerText.includes("+quote(text)+")")
}

func (b *tab) text(sel string) string {
	b.t.Helper()
	b.until(sel+" is there", "document.querySelector("+quote(sel)+")")
	text, err := eval[string](b, "document.querySelector("+quote(sel)+").innerText")
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// click presses what is there now: the page exchanges its elements while it is live.
func (b *tab) click(sel string) {
	b.t.Helper()
	b.until("click "+sel, "(() => { const e = document.querySelector("+quote(sel)+"); if (!e || !e.checkVisibility()) return false; e.click(); return true; })()")
}

// clickText presses the link, button or summary that says text.
func (b *tab) clickText(text string) {
	b.t.Helper()
	b.until("click "+text, "(() => { const e = [...document.querySelectorAll('a, button, summary')].find((e) => e.innerText.trim() === "+quote(text)+
		" && e.checkVisibility()); if (!e) return false; e.click(); return true; })()")
}

// key types as a keyboard does: a letter appears only where the page lets the key pass.
func (b *tab) key(keys string) {
	b.t.Helper()
	b.until("the page listens", "document.readyState === 'complete'") // its script has run by then
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for _, r := range keys {
		k := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: string(r), Text: string(r)}
		if r == '\r' {
			k.Key, k.Code, k.WindowsVirtualKeyCode = "Enter", "Enter", 13
		}
		_, err := chromedp.Call(ctx, input.DispatchKeyEvent, k)
		if err == nil {
			k.Type, k.Text = input.DispatchKeyEventTypeKeyUp, ""
			_, err = chromedp.Call(ctx, input.DispatchKeyEvent, k)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// login logs in by the form and comes out where it wanted to go.
func (b *tab) login(token, path string) {
	b.t.Helper()
	b.open(path)
	b.until("the login is asked for", "location.pathname === '/login' && document.querySelector('[name=token]')")
	b.run(chromedp.SendKeys("[name=token]", token+"\r"))
	b.until("logged in", "location.pathname !== '/login' && document.querySelector('main')")
}

func (b *tab) noDialog() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.dialogs) > 0 {
		b.t.Fatalf("a script ran in the page: it said %q", b.dialogs)
	}
}

// screens is where pictures go.
func screens() string {
	if dir := os.Getenv("PENSTOCK_SCREENS"); dir != "" {
		return dir
	}
	return filepath.Join("..", ".run", "screens")
}

// shoot takes a picture of the page; what cannot be pictured fails no test but TestScreens.
func (b *tab) shoot(name string, must bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		if err = os.MkdirAll(screens(), 0o755); err == nil {
			err = os.WriteFile(filepath.Join(screens(), name+".png"), png, 0o600)
		}
	}
	if err != nil && must {
		b.t.Fatalf("picture of %s: %v", name, err)
	}
}

// look switches to a scheme and a width.
func (b *tab) look(scheme string, width int64) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err == nil {
		_, err = chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// within waits for something outside the browser.
func (b *tab) within(what string, f func() error) {
	b.t.Helper()
	if err := wait(what, f); err != nil {
		b.t.Fatal(err)
	}
}

func order(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), time.Now().UnixNano())
}
