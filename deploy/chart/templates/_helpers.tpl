{{/* The image of one of our programs: (list . "extra-controller"). */}}
{{- define "kantai.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.registry }}/{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
{{- end }}

{{- define "kantai.gatewayImage" -}}
{{ .Values.gateway.image.repository }}:{{ .Values.gateway.image.tag }}
{{- end }}

{{/* The labels of an object that belongs to one part: (list . "extra-controller"). */}}
{{- define "kantai.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: kantai
{{- with $root.Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the gateways start with: the files of deploy/, for this namespace. */}}
{{- define "kantai.bootstrap" -}}
{{- $host := printf "locality-ingress.%s.svc" .Release.Namespace -}}
{{- $envoy := ternary "files/envoy-plain.yaml" "files/envoy.yaml" (eq .Values.certificates.source "plain-text") -}}
{{- $files := dict "envoy.yaml" $envoy -}}
{{- if ne .Values.certificates.source "plain-text" -}}
{{- $files = merge $files (dict "authority.yaml" "files/authority.yaml" "gateway-certificate.yaml" "files/gateway-certificate.yaml") -}}
{{- end -}}
{{- $root := . -}}
{{- range $name, $file := $files }}
{{ $name }}: |
  {{- $root.Files.Get $file | replace "locality-ingress.kantai-system.svc" $host | nindent 2 }}
{{- end }}
{{- end }}
