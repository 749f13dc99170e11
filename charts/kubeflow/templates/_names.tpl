{{/* What tells this release's predictor from all other pods: labels that KServe gives. Cannot change. */}}
{{- define "kubeflow.selector" -}}
serving.kserve.io/inferenceservice: {{ .Release.Name }}
component: predictor
{{- end }}

{{- define "kubeflow.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* An image with its tag. Takes a list: the value's path, the value. */}}
{{- define "kubeflow.image" -}}
{{- $path := index . 0 }}{{ $image := index . 1 -}}
{{- $pinned := printf "expected a tag that always means the same image. Give --set-string %s.tag=<tag>." $path -}}
{{- $repository := required (printf "%s.repository: found nothing, expected the image of a server. Give --set %s.repository=<name>." $path $path) $image.repository -}}
{{- $tag := required (printf "%s.tag: found nothing, %s" $path $pinned) $image.tag -}}
{{- if eq $tag "latest" }}{{ fail (printf "%s.tag: found latest, %s" $path $pinned) }}{{ end -}}
{{- $repository }}:{{ $tag }}
{{- end }}

{{/* The number of the port that a value names. Takes a list: the root, the value's path, the name. */}}
{{- define "kubeflow.port" -}}
{{- $root := index . 0 }}{{ $value := index . 1 }}{{ $name := index . 2 -}}
{{- if not (hasKey $root.Values.ports $name) -}}
{{- $names := keys $root.Values.ports | sortAlpha | join ", " -}}
{{- fail (printf "%s: found %q, expected a name in ports (%s). Name one of them, or add the port." $value $name $names) -}}
{{- end -}}
{{- get $root.Values.ports $name | int -}}
{{- end }}

{{/* Where predictions are asked for in a pod: KServe's agent, if there is one, else the server. */}}
{{- define "kubeflow.asked" -}}
{{- if or .Values.logger.url .Values.batcher.maxBatchSize }}9081{{ else }}{{ .Values.ports.main | int }}{{ end -}}
{{- end }}

{{/* An HTTP probe's question. Takes a list: the root, the name of a probe. */}}
{{- define "kubeflow.question" -}}
{{- $root := index . 0 }}{{ $name := index . 1 }}{{ $probe := get $root.Values.probes $name -}}
httpGet:
  path: {{ $probe.path | quote }}
  port: {{ include "kubeflow.port" (list $root (printf "probes.%s.port" $name) $probe.port) }}
{{- end }}

{{/* What is the same for all pods. */}}
{{- define "kubeflow.pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
deploymentStrategy:
  type: RollingUpdate
  # The old pod goes only when the new one is ready.
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
{{- end }}

{{/* What is the same for all containers. */}}
{{- define "kubeflow.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables of a container. Takes name -> text. */}}
{{- define "kubeflow.environment" -}}
env:
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{/* Who may ask for predictions and explanations. */}}
{{- define "kubeflow.callers" -}}
- podSelector:
    matchExpressions:
    - {key: exhibit/source, operator: In, values: [gateway, detectors, explainers, batch]}
{{- end }}
