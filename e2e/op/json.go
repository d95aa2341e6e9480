package op

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// jsonRequest returns a request with body as JSON, or with none if it is nil.
func jsonRequest(ctx context.Context, method, url string, body any) (*http.Request, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encoding a request to %s: %w", url, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// do sends the request and decodes the answer from JSON, unless it is nil. A status of 400 or above is an error.
func do(client *http.Client, req *http.Request, answer any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer of %s: %w", req.URL, err)
	case resp.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("%s %s: got status %d: %s", req.Method, req.URL, resp.StatusCode, content)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(content, answer)
}

// callJSON sends a request with a JSON body and decodes the answer.
func callJSON(ctx context.Context, method, url string, body, answer any) error {
	req, err := jsonRequest(ctx, method, url, body)
	if err != nil {
		return err
	}
	return do(http.DefaultClient, req, answer)
}
