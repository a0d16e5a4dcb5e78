{{- define "wsmon.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "wsmon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "wsmon.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "wsmon.selectorLabels" -}}
app.kubernetes.io/name: {{ include "wsmon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "wsmon.labels" -}}
{{ include "wsmon.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "wsmon.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "wsmon.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "wsmon.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The endpoint of a PodMonitor or ServiceMonitor, from its values. */}}
{{- define "wsmon.endpoint" -}}
- port: metrics
  # With workload_labels, a metric's own label `namespace` is that of the connection's pod.
  honorLabels: true
  {{- with .interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  relabelings:
    # The rules and dashboards select this job.
    - targetLabel: job
      replacement: wsmon
    # wsmon reports on its node, and the address of its pod changes.
    - sourceLabels: [__meta_kubernetes_pod_node_name]
      targetLabel: instance
  {{- with .endpoint }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The action of a probe: a GET of `path`, or else an exec. `values` are those of the chart. `wsmon status` would not do,
because its exit status is 1 with a single zombie. */}}
{{- define "wsmon.probe" -}}
{{- if .values.metrics.webConfigSecret -}}
exec:
  command: [/usr/bin/wsmon, list, --limit=1]
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{- end -}}
{{- end -}}
