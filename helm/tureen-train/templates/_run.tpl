{{/* The run: its names, its command, its pod, and the contradictions that are refused. */}}

{{- define "train.fullname" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "train.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "train.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default (printf "%s-train" .Chart.AppVersion) .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "train.runsClaim" -}}
{{ default (printf "%s-runs" (include "train.fullname" .)) .Values.runs.existingClaim }}
{{- end -}}

{{- define "train.guards" -}}
{{- $values := .Values -}}
{{- if not (or $values.recipe $values.recipeFile) -}}
{{- fail "there is nothing to run: set recipe, or recipeFile by --set-file" -}}
{{- else if and $values.recipe $values.recipeFile -}}
{{- fail "recipe and recipeFile exclude one another: keep one of them" -}}
{{- else if and (gt (int $values.nodes) 1) (ne $values.runs.accessMode "ReadWriteMany") -}}
{{- fail (printf "nodes %d cannot share a %s claim of runs: set runs.accessMode to ReadWriteMany" (int $values.nodes) $values.runs.accessMode) -}}
{{- else if and $values.gpu.count (regexMatch "(^|[-_.])cpu$" $values.image.tag) (not $values.image.digest) -}}
{{- fail (printf "image.tag %s has no CUDA, and gpu.count asks for devices" $values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What starts the run: by torchrun where there is more than one process. */}}
{{- define "train.command" -}}
{{- $processes := max 1 (int .Values.gpu.count) -}}
{{- $command := list "tureen-train" -}}
{{- if eq .Values.by "trainjob" -}}
{{- $command = list "torchrun" "-m" "tureen_train" -}}
{{- else if gt (int .Values.nodes) 1 -}}
{{- $command = list "torchrun" (printf "--nnodes=%d" (int .Values.nodes)) (printf "--nproc-per-node=%d" $processes) "--node-rank=$(JOB_COMPLETION_INDEX)" (printf "--master-addr=%s" (include "train.leader" .)) "--master-port=29500" "-m" "tureen_train" -}}
{{- else if gt $processes 1 -}}
{{- $command = list "torchrun" "--standalone" (printf "--nproc-per-node=%d" $processes) "-m" "tureen_train" -}}
{{- end -}}
{{- $command = concat $command (list "run" (default "/etc/tureen/recipe.yaml" .Values.recipe)) -}}
{{- range $key, $value := .Values.set -}}
{{- $command = concat $command (list "--set" (printf "%s=%s" $key (ternary $value (toJson $value) (kindIs "string" $value)))) -}}
{{- end -}}
{{- if .Values.resume -}}{{- $command = append $command "--resume" -}}{{- end -}}
{{- toYaml $command -}}
{{- end -}}

{{/* The name under which the first pod is found. */}}
{{- define "train.leader" -}}
{{- $name := include "train.fullname" . -}}
{{- if eq .Values.by "jobset" -}}{{ $name }}-node-0-0.{{ $name }}{{- else -}}{{ $name }}-0.{{ $name }}{{- end -}}
{{- end -}}

{{- define "train.mounts" -}}
- {name: runs, mountPath: /runs}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if .Values.data.existingClaim }}
- {name: data, mountPath: /data, readOnly: true}
{{- end }}
{{- if .Values.recipeFile }}
- {name: recipe, mountPath: /etc/tureen, readOnly: true}
{{- end }}
{{- end -}}

{{- define "train.volumes" -}}
- name: runs
  persistentVolumeClaim: {claimName: {{ include "train.runsClaim" . | quote }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.tmp.size | quote }}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.shm.size | quote }}}
{{- with .Values.data.existingClaim }}
- name: data
  persistentVolumeClaim: {claimName: {{ . | quote }}, readOnly: true}
{{- end }}
{{- if .Values.recipeFile }}
- name: recipe
  configMap: {name: {{ include "train.fullname" . }}}
{{- end }}
{{- end -}}

{{- define "train.env" -}}
- {name: HOME, value: /tmp}
- {name: TORCH_EXTENSIONS_DIR, value: /tmp/extensions}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "train.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.count -}}
{{- $resources = merge $resources (dict "limits" (dict .Values.gpu.resource .Values.gpu.count)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* What a pod has beside its container, also of a TrainJob. */}}
{{- define "train.placing" -}}
{{- $fields := pick .Values "imagePullSecrets" "priorityClassName" "runtimeClassName" "nodeSelector" "tolerations" "affinity" -}}
automountServiceAccountToken: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- range $name, $value := $fields }}
{{- with $value }}
{{ $name }}: {{ if kindIs "string" . }}{{ . }}{{ else }}{{- toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
volumes: {{- include "train.volumes" . | nindent 2 }}
{{- end -}}

{{- define "train.podTemplate" -}}
metadata:
  labels: {{- merge (include "train.labels" . | fromYaml) .Values.labels | toYaml | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  {{- if and (eq .Values.by "job") (gt (int .Values.nodes) 1) }}
  subdomain: {{ include "train.fullname" . }}
  {{- end }}
  {{- include "train.placing" . | nindent 2 }}
  containers:
    - name: node
      image: {{ include "train.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      workingDir: /runs
      command: {{- include "train.command" . | nindent 8 }}
      env: {{- include "train.env" . | nindent 8 }}
      {{- with .Values.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      resources: {{- include "train.resources" . | nindent 8 }}
      securityContext: {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts: {{- include "train.mounts" . | nindent 8 }}
{{- end -}}

{{/* A Job's spec: one pod for each node, each with an index. */}}
{{- define "train.jobSpec" -}}
completions: {{ int .Values.nodes }}
parallelism: {{ int .Values.nodes }}
completionMode: Indexed
backoffLimit: {{ ternary 0 (mul .Values.retries .Values.nodes) (eq .Values.by "jobset") }}
template: {{- include "train.podTemplate" . | nindent 2 }}
{{- end -}}
