package main

import "fmt"

// printUse prints what use measured.
func printUse(store string, outcomes []outcome) {
	begin := outcomes[0].Memory.Anonymous
	fmt.Printf("| %s: in use | /s | median ms | p99 ms | longest ms | anonymous + MB | most + MB | of files MB | live MB |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n", store)
	for i, o := range outcomes {
		var name string
		took := o.Writes
		switch o.Do {
		case "begin":
			name = "process before it opens anything"
		case "open":
			name = "opened"
		case "live":
			continue
		case "peek":
			name = fmt.Sprintf("%d reads of any session, nothing written", o.Done)
		case "request":
			took = o.Reads
			name = "requests of any session as fast as they go"
			if outcomes[i-1].Do != "request" {
				name = "requests of any session, 2,000/s"
			}
		case "login":
			name = "logins"
		case "refresh":
			name = "refreshes"
			if outcomes[i-1].Do == "refresh" {
				name = "refreshes that bring an ID token"
			}
		}
		live := ""
		if i+1 < len(outcomes) && outcomes[i+1].Do == "live" {
			live = fmt.Sprintf("%.1f", mb(outcomes[i+1].Live))
		}
		rate := ""
		if o.Done > 0 {
			rate = fmt.Sprintf("%.0f", float64(o.Done)/o.Seconds)
		}
		times := " | | "
		if took.N > 0 {
			times = fmt.Sprintf("%.2f | %.1f | %.1f", took.Median, took.P99, took.Longest)
		}
		plus := fmt.Sprintf("%+.0f | %+.0f", mb(o.Memory.Anonymous-begin), mb(o.Most-begin))
		if o.Do == "begin" {
			plus = fmt.Sprintf("(%.0f) | ", mb(begin))
		}
		fmt.Printf("| %s | %s | %s | %s | %.0f | %s |\n", name, rate, times, plus, mb(o.Memory.File), live)
	}
}
