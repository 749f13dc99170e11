{{/* What tells this release's pods from all others; cannot change after the first install. */}}
{{- define "model-server.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "model-server.labels" -}}
{{ include "model-server.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "model-server.image" -}}
{{- $pinned := "expected a tag that always means the same image. Give --set-string image.tag=<tag>." -}}
{{- $repository := required "image.repository: found nothing, expected the image of a server. Give --set image.repository=<name>." .Values.image.repository -}}
{{- $tag := required (printf "image.tag: found nothing, %s" $pinned) .Values.image.tag -}}
{{- if eq $tag "latest" }}{{ fail (printf "image.tag: found latest, %s" $pinned) }}{{ end -}}
{{- $repository }}:{{ $tag }}
{{- end }}

{{/* The number of the port that a value names. Takes a list: the root, the value's path, the name. */}}
{{- define "model-server.port" -}}
{{- $root := index . 0 }}{{ $value := index . 1 }}{{ $name := index . 2 -}}
{{- if not (hasKey $root.Values.ports $name) -}}
{{- $names := keys $root.Values.ports | sortAlpha | join ", " -}}
{{- fail (printf "%s: found %q, expected a name in ports (%s). Name one of them, or add the port." $value $name $names) -}}
{{- end -}}
{{- get $root.Values.ports $name | int -}}
{{- end }}

{{/* An HTTP probe's question. Takes a list: the root, the name of a probe. */}}
{{- define "model-server.question" -}}
{{- $root := index . 0 }}{{ $name := index . 1 }}{{ $probe := get $root.Values.probes $name -}}
httpGet:
  path: {{ $probe.path | quote }}
  port: {{ include "model-server.port" (list $root (printf "probes.%s.port" $name) $probe.port) }}
{{- end }}
