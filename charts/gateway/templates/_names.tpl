{{/* What tells this release's pods from all others; cannot change after the first install. */}}
{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "gateway.platform" -}}
{{- required "platform: found nothing, expected the platform behind the gateway. Give --set platform=<name>." .Values.platform -}}
{{- end }}

{{- define "gateway.image" -}}
{{- if eq .Values.image.tag "latest" -}}
{{- fail "image.tag: found latest, expected a tag that always means the same image. Give --set-string image.tag=<tag>." -}}
{{- end -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{/* A name that is looked up as it is: the dot at its end spares one look-up for each domain that is searched. */}}
{{- define "gateway.name" -}}
{{- $root := index . 0 -}}
{{ include "gateway.platform" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc.{{ $root.Values.clusterDomain }}.
{{- end }}

{{- define "gateway.upstream" -}}
{{ .Values.upstream.host | default (include "gateway.name" (list . "pods")) }}
{{- end }}

{{- define "gateway.canary" -}}
{{ .Values.canary.host | default (include "gateway.name" (list . "canary-pods")) }}
{{- end }}

{{- define "gateway.mirror" -}}
{{ .Values.mirror.host | default (include "gateway.name" (list . "detectors-detectors")) }}
{{- end }}

{{/* Envoy's configuration. Its file is a template of these values, with copies of requests or without. */}}
{{- define "gateway.config" -}}
{{- $file := .Values.mirror.enabled | ternary "files/envoy-with-mirror.yaml" "files/envoy.yaml" -}}
{{ tpl (.Files.Get $file) . }}
{{- end }}
