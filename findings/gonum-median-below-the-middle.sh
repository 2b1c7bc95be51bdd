#!/usr/bin/env bash
# gonum: the interpolated median of 1, 2, 3, 4, 5 is 2.5, and that of 10 and 90 is 10.
#
# Part:     gonum.org/v1/gonum v0.17.0 (Go module), package stat.
# Date:     28 November 2026.
# Expected: Quantile(0.5, LinInterp, ...) is "the linearly interpolated value": the middle one of
#           an odd number of samples, the mean of the two in the middle of an even number. Turning
#           the signs turns the sign of the median.
# Seen:     the interpolation runs from each sample's share of the whole, i / n, so it is half a
#           sample too low everywhere. The medians are 2.5 and 10; with the signs turned they are
#           -3.5 and -90. The 99th percentile of 49 times 1 and one 100 is 50.5. Empirical gives 3,
#           10 and 100.
# Who meets it: whoever sums up a few round trips a pair in Go. Of two samples the median is the
#           better one, so the pair with the fewest samples looks best.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v go >/dev/null || { echo "cannot run: go is missing"; exit 2; }
export GOPATH="$work/go" GOFLAGS=-modcacherw
cat >"$work/main.go" <<'GO'
package main

import (
	"fmt"
	"os"

	"gonum.org/v1/gonum/stat"
)

func median(kind stat.CumulantKind, sorted ...float64) float64 {
	return stat.Quantile(0.5, kind, sorted, nil)
}

func main() {
	five := median(stat.LinInterp, 1, 2, 3, 4, 5)
	turned := median(stat.LinInterp, -5, -4, -3, -2, -1)
	two := median(stat.LinInterp, 10, 90)
	fmt.Printf("LinInterp: median of 1 to 5 is %v, of -5 to -1 %v, of 10 and 90 %v\n", five, turned, two)
	fmt.Printf("Empirical: median of 1 to 5 is %v\n", median(stat.Empirical, 1, 2, 3, 4, 5))
	if five == 2.5 && turned == -3.5 && two == 10 {
		fmt.Println("seen: interpolated medians lie half a sample below the middle")
		return
	}
	fmt.Println("not seen: interpolated medians are other ones than before")
	os.Exit(1)
}
GO
(cd "$work" && go mod init finding && go get gonum.org/v1/gonum@v0.17.0 && go build -o finding .) >"$work/go.log" 2>&1 \
    || { cat "$work/go.log"; echo "cannot run: go build failed"; exit 2; }
"$work/finding"
