{{/* Each of these takes a list: the root, the part's name (prometheus, alertmanager, webhook, grafana). */}}

{{/* What tells one part's pods from all others; cannot change after the first install. */}}
{{- define "monitoring.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "monitoring.labels" -}}
{{ include "monitoring.selector" . }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}

{{- define "monitoring.name" -}}
{{ (index . 0).Release.Name }}-{{ index . 1 }}
{{- end }}

{{- define "monitoring.image" -}}
{{- $part := index . 1 }}{{ $image := (get (index . 0).Values $part).image -}}
{{- $wanted := printf "expected a tag that always means the same image. Give --set-string %s.image.tag=<tag>." $part -}}
{{- $tag := required (printf "%s.image.tag: found nothing, %s" $part $wanted) $image.tag -}}
{{- if eq $tag "latest" }}{{ fail (printf "%s.image.tag: found latest, %s" $part $wanted) }}{{ end -}}
{{ $image.repository }}:{{ $tag }}
{{- end }}

{{/* A Deployment's spec up to its pods. Each part keeps its data in its pod: a new pod begins without. */}}
{{- define "monitoring.one" -}}
replicas: 1
revisionHistoryLimit: 3
# Never two at once: what one has seen the other has not.
strategy: {type: Recreate}
selector:
  matchLabels:
    {{- include "monitoring.selector" . | nindent 4 }}
{{- end }}

{{/* Security of a pod; takes the user's number. */}}
{{- define "monitoring.user" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "monitoring.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The part's Service. Takes one more: its port, which has the name `web`. */}}
{{- define "monitoring.service" -}}
{{- $own := list (index . 0) (index . 1) }}{{ $nodePort := (get (index . 0).Values (index . 1)).nodePort -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "monitoring.name" $own }}
  labels:
    {{- include "monitoring.labels" $own | nindent 4 }}
spec:
  type: {{ empty $nodePort | ternary "ClusterIP" "NodePort" }}
  selector:
    {{- include "monitoring.selector" $own | nindent 4 }}
  ports:
  - name: web
    port: {{ index . 2 }}
    targetPort: web
    protocol: TCP
    {{- with $nodePort }}
    nodePort: {{ . }}
    {{- end }}
{{- end }}

{{/* The part's NetworkPolicy up to its egress. Takes two more: its port, and the list of parts that may connect to it. */}}
{{- define "monitoring.policy" -}}
{{- $root := index . 0 }}{{ $own := list $root (index . 1) }}{{ $port := index . 2 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "monitoring.name" $own }}
  labels:
    {{- include "monitoring.labels" $own | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "monitoring.selector" $own | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- if (get $root.Values (index . 1)).nodePort }}
  ingress:
  # From anywhere: what comes through a node port has that node's address, whoever sent it.
  - ports:
    - {port: {{ $port }}, protocol: TCP}
  {{- else }}
  ingress:
  {{- range index . 3 }}
  - from:
    - podSelector:
        matchLabels:
          {{- include "monitoring.selector" (list $root .) | nindent 10 }}
    ports:
    - {port: {{ $port }}, protocol: TCP}
  {{- else }} []
  {{- end }}
  {{- end }}
{{- end }}

{{/* One rule of egress, to a part. Takes one more: its port. */}}
{{- define "monitoring.to" -}}
- to:
  - podSelector:
      matchLabels:
        {{- include "monitoring.selector" (list (index . 0) (index . 1)) | nindent 8 }}
  ports:
  - {port: {{ index . 2 }}, protocol: TCP}
{{- end }}

{{- define "monitoring.to-dns" -}}
- to:
  - namespaceSelector:
      matchLabels: {kubernetes.io/metadata.name: kube-system}
    podSelector:
      matchLabels: {k8s-app: kube-dns}
  ports:
  - {port: 53, protocol: UDP}
  - {port: 53, protocol: TCP}
{{- end }}
