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

{{- define "tureen.plainKey" -}}
{{- $first := first (default list .Values.keys.values) -}}
{{- if and $first (not (hasPrefix "sha256:" $first)) -}}true{{- end -}}
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

{{- define "tureen.artifactsClaim" -}}
{{ default (printf "%s-artifacts" (include "tureen.fullname" .)) .Values.artifacts.existingClaim }}
{{- end -}}

{{/* The most pods that there can be, which share claims and a store. */}}
{{- define "tureen.mostPods" -}}
{{- $serving := ternary .Values.autoscaling.maxReplicas .Values.replicaCount (not (empty .Values.autoscaling.by)) -}}
{{- $serving = mul $serving (ternary .Values.multiNode.size 1 .Values.multiNode.enabled) -}}
{{- add $serving .Values.batches.workers.replicaCount -}}
{{- end -}}

{{/* The labels of the pods that run batches: they are none of the Service's. */}}
{{- define "tureen.workerLabels" -}}
{{- $name := default .Chart.Name .Values.nameOverride | trunc 56 | trimSuffix "-" -}}
app.kubernetes.io/name: {{ $name }}-worker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* A quantity of Kubernetes, or a number, as a number. */}}
{{- define "tureen.amount" -}}
{{- if kindIs "string" . -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "E" 1000000000000000000 -}}
{{- $factors = merge $factors (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976) -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" . -}}
{{- mulf (float64 $number) (float64 (get $factors (trimPrefix $number .))) -}}
{{- else -}}
{{- float64 . -}}
{{- end -}}
{{- end -}}

{{- define "tureen.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "tureen.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* The labels of the pods that answer requests: of a group over several nodes only the first. */}}
{{- define "tureen.servingLabels" -}}
{{ include "tureen.selectorLabels" . }}
{{- if .Values.multiNode.enabled }}
leaderworkerset.sigs.k8s.io/worker-index: "0"
{{- end }}
{{- end -}}
