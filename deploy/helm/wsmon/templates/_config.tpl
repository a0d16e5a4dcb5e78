{{/* A value of YAML as one of TOML. A string of JSON without escaped HTML is a basic string of TOML. */}}
{{- define "wsmon.toml.value" -}}
{{- if kindIs "string" . -}}
{{ toRawJson . }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else if kindIs "slice" . -}}
[{{ range $index, $element := . }}{{ if $index }}, {{ end }}{{ include "wsmon.toml.value" $element }}{{ end }}]
{{- else -}}
{{ int64 . }}
{{- end -}}
{{- end -}}

{{/* A hop as an inline table. */}}
{{- define "wsmon.toml.hop" -}}
{{- $hop := . -}}
{{- $pairs := list -}}
{{- range $key := list "profile" "name" "idle_timeout" "activity" "direction" "on_expiry" "max_lifetime" -}}
{{- if hasKey $hop $key -}}
{{- $pairs = append $pairs (printf "%s = %s" $key (include "wsmon.toml.value" (index $hop $key))) -}}
{{- end -}}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- end -}}

{{/* The key `path` with one hop a line. */}}
{{- define "wsmon.toml.path" -}}
{{- if . -}}
path = [
{{- range . }}
    {{ include "wsmon.toml.hop" . }},
{{- end }}
]
{{- else -}}
path = []
{{- end -}}
{{- end -}}

{{/* The keys of a table, sorted. */}}
{{- define "wsmon.toml.keys" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ include "wsmon.toml.value" $value }}
{{- end -}}
{{- end -}}

{{/* The configuration file. */}}
{{- define "wsmon.config" -}}
# `wsmon config check FILE` explains this file; docs/running.md has all keys.
{{- range $listener := .Values.listeners }}

[[listener]]
{{- with $listener.name }}
name = {{ include "wsmon.toml.value" . }}
{{- end }}
{{- $ports := list }}
{{- range $listener.ports }}
{{- $ports = append $ports (toString .) }}
{{- end }}
ports = {{ include "wsmon.toml.value" $ports }}
{{- range $key := list "remote" "ping_timeout" "unresponsive_floor" "message_gap" }}
{{- if hasKey $listener $key }}
{{ $key }} = {{ include "wsmon.toml.value" (index $listener $key) }}
{{- end }}
{{- end }}
{{- with $listener.path }}
{{ include "wsmon.toml.path" . }}
{{- end }}
{{- range $listener.route }}

[[listener.route]]
network = {{ include "wsmon.toml.value" .network }}
{{ include "wsmon.toml.path" .path }}
{{- end }}
{{- end }}

[daemon]
metrics_addr = ":{{ int64 .Values.metrics.port }}"
control = "/run/wsmon.sock"
pod_logs = "/host/pods"
{{- if .Values.metrics.webConfigSecret }}
web_config = "/etc/wsmon-web/web.yml"
{{- end }}
{{- if .Values.hostPaths.state }}
state = "/var/lib/wsmon/state.json"
{{- end }}
{{- include "wsmon.toml.keys" .Values.daemon }}

[alerts]
log = "-"
{{- include "wsmon.toml.keys" .Values.alerts }}
{{- with .Values.reap }}

[reap]
{{- include "wsmon.toml.keys" . }}
{{- end }}
{{- with .Values.privacy }}

[privacy]
{{- include "wsmon.toml.keys" . }}
{{- end }}
{{- end -}}
