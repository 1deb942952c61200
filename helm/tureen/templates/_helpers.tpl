{{/* Names, labels and the choices that more than one template needs. */}}

{{- define "tureen.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tureen.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tureen.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tureen.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tureen.image" -}}
{{- $flavour := ternary "cuda" "cpu" (gt (int .Values.gpu.count) 0) -}}
{{- $tag := default (printf "%s-%s" .Chart.AppVersion $flavour) .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "tureen.keysFile" -}}
{{- if .Values.keys.entries -}}
{{- dict "keys" .Values.keys.entries | toJson -}}
{{- else -}}
{{- join "\n" .Values.keys.values -}}
{{- end -}}
{{- end -}}

{{- define "tureen.keysSecret" -}}
{{ default (printf "%s-keys" (include "tureen.fullname" .)) .Values.keys.existingSecret }}
{{- end -}}

{{- define "tureen.cacheClaim" -}}
{{ default (printf "%s-cache" (include "tureen.fullname" .)) .Values.cache.existingClaim }}
{{- end -}}

{{- define "tureen.batchesClaim" -}}
{{ default (printf "%s-batches" (include "tureen.fullname" .)) .Values.batches.persistence.existingClaim }}
{{- end -}}

{{/* Whether the folder of batches is used, and whether it is on a claim. */}}
{{- define "tureen.batchesFolder" -}}
{{- $elsewhere := and .Values.batches.store.existingSecret .Values.server.batches.files -}}
{{- if and .Values.server.batches.enabled (not $elsewhere) -}}true{{- end -}}
{{- end -}}

{{- define "tureen.batchesOnClaim" -}}
{{- if and (include "tureen.batchesFolder" .) .Values.batches.persistence.enabled -}}true{{- end -}}
{{- end -}}

{{- define "tureen.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "tureen.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}
