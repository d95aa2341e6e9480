package handler

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

const (
	// maxForm bounds the body of a form, in bytes. A logout token has 16 KiB at most.
	maxForm = 64 << 10
	// maxFormFields bounds the fields of a form. Authorization servers send less than
	// ten.
	maxFormFields = 100
	// formTime is how long the body may take to arrive.
	formTime = 10 * time.Second
)

// readForm reads the body of a request that must be a form
// (application/x-www-form-urlencoded), and returns it undecoded.
func readForm(w http.ResponseWriter, r *http.Request) (string, error) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return "", errors.New("the request is not a form (application/x-www-form-urlencoded)")
	}
	// A writer without deadlines is limited by the time-outs of the server.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(formTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return "", fmt.Errorf("the form is larger than %d bytes", maxForm)
		}
		return "", errors.New("the form did not arrive as a whole")
	}
	_ = control.SetReadDeadline(time.Time{})
	form := string(body)
	if strings.Count(form, "&") >= maxFormFields {
		return "", fmt.Errorf("the form has more than %d fields", maxFormFields)
	}
	return form, nil
}
