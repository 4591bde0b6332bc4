{{- define "swarm.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "swarm.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "swarm.labels" -}}
{{ include "swarm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "swarm.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What every process of Swarm is told: where the database is, the key of secrets, settings. */}}
{{- define "swarm.environment" -}}
- name: SWARM_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ required "database.existingSecret is needed" .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
- name: SWARM_MASTER_KEY
  valueFrom:
    secretKeyRef:
      name: {{ required "masterKey.existingSecret is needed" .Values.masterKey.existingSecret }}
      key: {{ .Values.masterKey.key }}
{{- with .Values.bucket.existingSecret }}
- name: SWARM_ARTIFACT_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: access_key_id}}
- name: SWARM_ARTIFACT_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: secret_access_key}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ printf "SWARM_%s" (upper $name) }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* What holds for every pod that makes no sandboxes. */}}
{{- define "swarm.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
