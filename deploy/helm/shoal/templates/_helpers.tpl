{{- define "shoal.name" -}}
{{- $name := .Release.Name }}
{{- if not (contains "shoal" $name) }}{{ $name = printf "%s-shoal" $name }}{{ end }}
{{- $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Metrics are for Prometheus, elsewhere; without it the endpoint is this machine's. */}}
{{- define "shoal.adminHost" -}}
{{- if .Values.podMonitor.enabled }}$(HOST_IP){{ else }}127.0.0.1{{ end -}}
{{- end }}

{{- define "shoal.config" -}}
data-dir: /var/lib/shoal
mirror: 127.0.0.1:{{ .Values.ports.mirror }}
swarm-key: /etc/shoal-key/swarm.key
no-mdns: true
log-level: {{ .Values.logLevel }}
log-format: {{ .Values.logFormat }}
join:
  - /dns4/{{ include "shoal.name" . }}-members.{{ .Release.Namespace }}.svc/tcp/{{ .Values.ports.swarm }}
{{- range .Values.join }}
  - {{ . | quote }}
{{- end }}
{{- with .Values.zone }}
zone: {{ . | quote }}
{{- end }}
{{- with .Values.cacheSize }}
cache-size: {{ . | quote }}
{{- end }}
{{- with .Values.registry }}
registry: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
