package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard refuses what a browser may have been tricked into: a page of another origin that posts here (curl's default content
// types are accepted, so no preflight protects us), and a page whose own name was pointed at our address (DNS rebinding).
func (a *API) guard(next http.Handler) http.Handler {
	return a.handle(func(w *response, r *http.Request) error {
		if err := a.origin.Check(r); err != nil {
			return forbidden.because("Pages of other origins may not call this.").causedBy(err)
		}
		if embeds(r) {
			return forbidden.because("Pages of other origins may not call this.")
		}
		if fromBrowser(r) && !a.knownHost(r.Host) {
			return forbidden.because("Browsers may call by IP address, by localhost, or by a name listed in the setting hosts.")
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// embeds reports whether a page of another origin fetches this, or shows it as a part of itself: it could not read it, but have the gateway
// wait, stream or profile, and with the browser's certificate. Links are followed.
func embeds(r *http.Request) bool {
	site, destination := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Dest")
	return (site == "cross-site" || site == "same-site") && destination != "" && destination != "document"
}

// fromBrowser goes by the User-Agent too: over plain HTTP a browser sends no Sec-Fetch-Site to a name that it does not trust, and
// no Origin with a GET of what it takes for the page's own origin.
func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" || strings.HasPrefix(r.UserAgent(), "Mozilla/")
}

func (a *API) knownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	return strings.EqualFold(host, "localhost") ||
		slices.ContainsFunc(a.o.Hosts, func(known string) bool { return strings.EqualFold(known, host) })
}
