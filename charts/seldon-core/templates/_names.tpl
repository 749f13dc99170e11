{{- define "seldon-core.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "seldon-core.image" -}}
{{- $image := .Values.server.image }}{{ $pinned := "expected a tag that always means the same image. Give --set-string server.image.tag=<tag>." -}}
{{- $repository := required "server.image.repository: found nothing, expected the image of an MLServer. Give --set server.image.repository=<name>." $image.repository -}}
{{- $tag := required (printf "server.image.tag: found nothing, %s" $pinned) $image.tag -}}
{{- if eq $tag "latest" }}{{ fail (printf "server.image.tag: found latest, %s" $pinned) }}{{ end -}}
{{- $repository }}:{{ $tag }}
{{- end }}

{{/* One version of the model. Takes a list: the root, the object's name, the folder of its files. */}}
{{- define "seldon-core.model" -}}
{{- $root := index . 0 }}{{ $model := $root.Values.model -}}
apiVersion: mlops.seldon.io/v1alpha1
kind: Model
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "seldon-core.labels" $root | nindent 4 }}
spec:
  storageUri: {{ index . 2 | quote }}
  {{- with $model.secretName }}
  secretName: {{ . }}
  {{- end }}
  server: {{ $root.Release.Name }}
  requirements:
    {{- toYaml $model.requirements | nindent 4 }}
  memory: {{ $model.memory }}
  replicas: {{ $model.replicas }}
{{- end }}
