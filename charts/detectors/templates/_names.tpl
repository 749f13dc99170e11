{{/* Each of these takes a list: the root, the companion's name; `port` also the value's path and the port's name. */}}

{{/* What tells one companion's pods from all others; cannot change after the first install. */}}
{{- define "detectors.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "detectors.labels" -}}
{{ include "detectors.selector" . }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}

{{- define "detectors.name" -}}
{{ (index . 0).Release.Name }}-{{ index . 1 }}
{{- end }}

{{- define "detectors.image" -}}
{{- $name := index . 1 }}{{ $image := (get (index . 0).Values.services $name).image -}}
{{- if eq $image.tag "latest" -}}
{{- fail (printf "services.%s.image.tag: found latest, expected a tag that always means the same image. Name one." $name) -}}
{{- end -}}
{{ $image.repository }}:{{ $image.tag }}
{{- end }}

{{/* The number of the port that a value names. */}}
{{- define "detectors.port" -}}
{{- $ports := (get (index . 0).Values.services (index . 1)).ports }}{{ $value := index . 2 }}{{ $port := index . 3 -}}
{{- if not (hasKey $ports $port) -}}
{{- $names := keys $ports | sortAlpha | join ", " -}}
{{- fail (printf "%s: found %q, expected a name in its ports (%s). Name one of them, or add the port." $value $port $names) -}}
{{- end -}}
{{- get $ports $port | int -}}
{{- end }}

{{/* What no schema can say, said before anything else. Takes the root alone. */}}
{{- define "detectors.check" -}}
{{- $_ := required "platform: found nothing, expected the platform they stand beside. Give --set platform=<name>." .Values.platform -}}
{{- if not .Values.services -}}
{{- fail "services: found none, expected at least one companion. Give its image, ports and pages as values.yaml says." -}}
{{- end -}}
{{- range $name, $ports := .Values.service.nodePorts -}}
{{- if not (hasKey $.Values.services $name) -}}
{{- $names := keys $.Values.services | sortAlpha | join ", " -}}
{{- fail (printf "service.nodePorts: found %q, expected a name in services (%s). Name one of them." $name $names) -}}
{{- end -}}
{{- range $port, $_ := $ports -}}
{{- $_ := include "detectors.port" (list $ $name (printf "service.nodePorts.%s" $name) $port) -}}
{{- end -}}
{{- end -}}
{{- end }}
