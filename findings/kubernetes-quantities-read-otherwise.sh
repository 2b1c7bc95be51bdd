#!/usr/bin/env bash
# Kubernetes' quantities: 1.5Gi is one byte to a reader in JavaScript, and 1Gi to one in Rust.
#
# Part:     k8s.io/apimachinery v0.37.2 (Go module), kubernetes-resource-parser 0.1.0 (npm),
#           kube_quantity 0.9.0 with k8s-openapi 0.29.0 (Rust crates).
# Date:     28 November 2026.
# Expected: what Kubernetes' own reader takes is read alike by the others, or refused: 1.5Gi is
#           1,610,612,736 bytes, 129e6 is 129,000,000, and a usage of 1500000n, as the metrics API
#           gives it, is 0.0015 cores.
# Seen:     kubernetes-resource-parser takes the digits before the first other character and looks
#           the unit up by what follows: 1 byte, 129 bytes, and 1,500,000 cores. kube_quantity cuts
#           the number to an integer before it multiplies by the unit: to_bytes_i64 of 1.5Gi is
#           1,073,741,824, and of 0.5Gi it is 0; to_bytes_f64 is right.
# Who meets it: whoever reckons with the free room of nodes from manifests and from the metrics
#           API. The API server writes 1.5Gi of a pod as 1536Mi, which both read well, so it shows
#           only with values that come from elsewhere.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in go node npm cargo; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
failed() { cat "$1"; echo "cannot run: a package could not be installed"; exit 2; }

mkdir -p "$work/go-reader" "$work/rust-reader/src" "$work/js-reader"
cat >"$work/go-reader/main.go" <<'GO'
package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
)

func main() {
	for _, text := range []string{"1.5Gi", "0.5Gi", "129e6"} {
		quantity := resource.MustParse(text)
		fmt.Print(quantity.Value(), " ")
	}
	quantity := resource.MustParse("1500000n")
	fmt.Println(quantity.AsApproximateFloat64())
}
GO
(export GOPATH="$work/go" GOFLAGS=-modcacherw && cd "$work/go-reader" && go mod init finding \
    && go get k8s.io/apimachinery@v0.37.2 && go mod tidy && go build -o finding .) >"$work/go.log" 2>&1 || failed "$work/go.log"

npm install --silent --no-audit --no-fund --prefix "$work/js-reader" kubernetes-resource-parser@0.1.0 >"$work/npm.log" 2>&1 \
    || failed "$work/npm.log"
cat >"$work/js-reader/run.cjs" <<'JS'
const { cpuParser, memoryParser } = require("kubernetes-resource-parser");
console.log(["1.5Gi", "0.5Gi", "129e6"].map(memoryParser).join(" "), cpuParser("1500000n"));
JS

cat >"$work/rust-reader/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
kube_quantity = "=0.9.0"
k8s-openapi = { version = "=0.29.0", default-features = false, features = ["latest"] }
TOML
cat >"$work/rust-reader/src/main.rs" <<'RUST'
fn main() {
    let read = |text: &str| kube_quantity::ParsedQuantity::try_from(text).expect("it is a quantity");
    for text in ["1.5Gi", "0.5Gi", "129e6"] {
        print!("{} ", read(text).to_bytes_i64().expect("it has bytes"));
    }
    println!("{}", read("1500000n").to_bytes_f64().expect("it has a value"));
}
RUST
(cd "$work/rust-reader" && CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo build --quiet) \
    >"$work/cargo.log" 2>&1 || failed "$work/cargo.log"

go_read=$("$work/go-reader/finding")
js_read=$(node "$work/js-reader/run.cjs")
rust_read=$("$work/target/debug/finding")
echo "1.5Gi, 0.5Gi and 129e6 in bytes, 1500000n in cores:"
printf '%-28s%s\n' apimachinery "$go_read" kubernetes-resource-parser "$js_read" kube_quantity "$rust_read"
if [ "$go_read" = "1610612736 536870912 129000000 0.0015" ] && [ "$js_read" = "1 0 129 1500000" ] \
    && [ "$rust_read" = "1073741824 0 129000000 0.0015" ]; then
    echo "seen: three readers, three values for 1.5Gi, none of them refused"
else
    echo "not seen: the readers answer otherwise than before"
    exit 1
fi
