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
{{- with .Values.registry }}
registry: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.offline }}
offline: true
{{- end }}
{{- /* What is empty is the node's default. */}}
{{- $v := .Values }}
{{- range $key, $value := dict "cache-size" $v.cacheSize "cache-high-water" $v.cache.highWater "cache-low-water" $v.cache.lowWater "min-free" $v.cache.minFree
  "cache-max-age" $v.cache.maxAge "scrub-every" $v.cache.scrubEvery "scrub-rate" $v.cache.scrubRate "reverify" $v.cache.reverify
  "max-upload" $v.limits.upload "max-download" $v.limits.download "max-origin" $v.limits.origin
  "relay-rate" $v.relay.rate "relay-circuit-rate" $v.relay.circuitRate "relay-reservations" $v.relay.reservations "relay-circuits" $v.relay.circuits
  "trusted-keys" $v.trustedKeys }}
{{- with $value }}
{{ $key }}: {{ toRawJson . }}
{{- end }}
{{- end }}
behind-nat: {{ .Values.behindNAT }}
{{- if .Values.relay.enabled }}
relay: true
{{- end }}
{{- if .Values.signingKey.existingSecret }}
signing-key: /etc/shoal-signing-key/signing.key
{{- end }}
{{- with include "shoal.seeder" . }}
seeder: {{ . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shoal.seeder" -}}
{{- with .Values.seeder }}
{{- range $key, $value := pick . "concurrency" "rate" "select" }}
{{- with $value }}
{{ $key }}: {{ toRawJson . }}
{{- end }}
{{- end }}
{{- with .checkHolders }}
check-holders: {{ . }}
{{- end }}
{{- if .webhook.port }}
webhook: {listen: "0.0.0.0:{{ .webhook.port }}", secret-file: /etc/shoal-webhook/webhook.secret}
{{- end }}
{{- end }}
{{- end }}

{{- /* Secrets by the folder below /etc in which they are files of the node. */}}
{{- define "shoal.files" -}}
{{- with .Values.signingKey.existingSecret }}
shoal-signing-key: {{ . }}
{{- end }}
{{- if .Values.seeder.webhook.port }}
shoal-webhook: {{ .Values.seeder.webhook.existingSecret }}
{{- end }}
{{- range .Values.secrets }}
shoal-secrets/{{ . }}: {{ . }}
{{- end }}
{{- end }}
