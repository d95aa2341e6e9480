package caddymodule

// nearestOption returns the option with the smallest edit distance to a misspelt name,
// or "" if none is near.
func nearestOption(name string) string {
	best, distance := "", len(name)/3+2
	for candidate := range options {
		if d := editDistance(name, candidate); d < distance || d == distance && candidate < best {
			best, distance = candidate, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
