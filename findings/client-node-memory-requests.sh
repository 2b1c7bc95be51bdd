#!/usr/bin/env bash
# Kubernetes' client for JavaScript: topPods adds a container's memory request to the others'
# limits.
#
# Part:     @kubernetes/client-node 1.4.0 (npm; the newest that runs on Node 20).
# Date:     28 November 2026.
# Expected: for a pod of two containers, which request 64Mi and 16Mi with limits of 512Mi and 32Mi,
#           topPods gives Memory.RequestTotal = 80Mi and Memory.LimitTotal = 544Mi.
# Seen:     RequestTotal = 528Mi: the limits of the containers before the last one plus the request
#           of the last. Without limits it is the last container's request alone, 16Mi. The sum for
#           the CPU is right, and so is a pod of one container.
# Who meets it: whoever reckons with a node's free room by this client. Every Knative pod has two
#           containers, the function and its queue-proxy.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in node npm; do
    command -v "$tool" >/dev/null || { echo "cannot run: $tool is missing"; exit 2; }
done
npm install --silent --no-audit --no-fund --prefix "$work" @kubernetes/client-node@1.4.0 >"$work/npm.log" 2>&1 \
    || { cat "$work/npm.log"; echo "cannot run: npm failed"; exit 2; }

cat >"$work/run.mjs" <<'JS'
import { topPods } from "@kubernetes/client-node";

const mebibyte = 1024n * 1024n;

// What an API server and its metrics server would answer, without either.
async function memory(containers) {
  const pod = { metadata: { name: "function", namespace: "default" }, spec: { containers }, status: { phase: "Running" } };
  const api = {
    listPodForAllNamespaces: async () => ({ items: [pod] }),
    listNamespacedPod: async () => ({ items: [pod] }),
  };
  const metrics = { getPodMetrics: async () => ({ items: [] }) };
  const [found] = await topPods(api, metrics);
  return { request: BigInt(found.Memory.RequestTotal) / mebibyte, limit: BigInt(found.Memory.LimitTotal) / mebibyte };
}

const container = (name, request, limit) => ({
  name,
  resources: { requests: { memory: request }, ...(limit ? { limits: { memory: limit } } : {}) },
});
const limited = await memory([container("user", "64Mi", "512Mi"), container("sidecar", "16Mi", "32Mi")]);
const open = await memory([container("user", "64Mi"), container("sidecar", "16Mi")]);
console.log(`requests 64Mi + 16Mi, limits 512Mi + 32Mi: RequestTotal ${limited.request}Mi, LimitTotal ${limited.limit}Mi`);
console.log(`requests 64Mi + 16Mi, no limits: RequestTotal ${open.request}Mi, LimitTotal ${open.limit}Mi`);
const seen = limited.request === 528n && limited.limit === 544n && open.request === 16n;
console.log(
  seen
    ? "seen: the memory request of a pod is the limits of all containers but the last, plus the last request"
    : "not seen: the memory requests of a pod are added otherwise than before",
);
process.exit(seen ? 0 : 1);
JS
cd "$work" && node run.mjs
