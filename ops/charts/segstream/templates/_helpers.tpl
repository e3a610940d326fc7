{{- define "segstream.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "segstream.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "segstream.labels" -}}
{{ include "segstream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "segstream.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Variables and the settings file. The topics job comes before the release's own ConfigMap. */}}
{{- define "segstream.settings" -}}
{{- range $section, $keys := .Values.settings }}
{{- range $key, $value := $keys }}
{{- $text := toString $value }}
{{- if or (kindIs "map" $value) (kindIs "slice" $value) }}{{ $text = toJson $value }}{{ end }}
{{- /* A large whole number would come out as 1e+06. */}}
{{- if kindIs "float64" $value }}{{ if eq $value (floor $value) }}{{ $text = $value | int64 | toString }}{{ end }}{{ end }}
SEGSTREAM_{{ upper $section }}__{{ upper $key }}: {{ $text | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Who may ask the API: a list of the settings, each with the file of its token. */}}
{{- define "segstream.clients" -}}
{{- $clients := list }}
{{- range $name, $scopes := .Values.api.clients }}
{{- $clients = append $clients (dict "name" $name "token" (printf "file:/var/run/segstream/clients/%s" $name) "scopes" $scopes) }}
{{- end }}
{{- toJson $clients }}
{{- end }}

{{- define "segstream.pod" -}}
serviceAccountName: {{ include "segstream.name" .root }}
automountServiceAccountToken: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
# A role told to stop has ended within 30 seconds.
terminationGracePeriodSeconds: 35
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  # The compiled decoder outlives a container's restart.
  - {name: cache, emptyDir: {}}
  {{- if .root.Values.settingsFile }}
  - name: settings
    configMap: {name: {{ .settings }}, items: [{key: shop.toml, path: shop.toml}]}
  {{- end }}
  {{- if eq (.role | default "") "api" }}
  - name: clients
    secret: {secretName: {{ required "api.clientsSecret: the role api needs the tokens of its clients" .root.Values.api.clientsSecret }}}
  {{- end }}
  {{- with .root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "segstream.container" -}}
image: {{ include "segstream.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: SEGSTREAM_METRICS__HOST, value: 0.0.0.0}
  - {name: SEGSTREAM_METRICS__PORT, value: "9100"}
  # So that what a role died of is scraped.
  - {name: SEGSTREAM_METRICS__LINGER_SECONDS, value: "30"}
  {{- if eq .role "api" }}
  - {name: SEGSTREAM_API__HOST, value: 0.0.0.0}
  - {name: SEGSTREAM_API__PORT, value: "8080"}
  - {name: SEGSTREAM_API__CLIENTS, value: {{ include "segstream.clients" .root | quote }}}
  {{- end }}
  {{- if .root.Values.settingsFile }}
  - {name: SEGSTREAM_CONFIG, value: /etc/segstream/shop.toml}
  {{- end }}
envFrom:
  - configMapRef: {name: {{ .environment }}}
  {{- with .root.Values.existingSecret }}
  - secretRef: {name: {{ . }}}
  {{- end }}
  {{- with index .root.Values.roleSecrets .role }}
  - secretRef: {name: {{ . }}}
  {{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: cache, mountPath: /var/cache/segstream}
  {{- if .root.Values.settingsFile }}
  - {name: settings, mountPath: /etc/segstream, readOnly: true}
  {{- end }}
  {{- if eq .role "api" }}
  - {name: clients, mountPath: /var/run/segstream/clients, readOnly: true}
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
