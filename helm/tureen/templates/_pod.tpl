{{/* The pods: of `top`, for the `role` server (it answers requests), worker (it runs batches) or follower (it lends its
GPUs to the first pod of its group). */}}

{{- define "tureen.podTemplate" -}}
{{- $top := .top -}}
{{- $values := .top.Values -}}
{{- $labels := ternary (include "tureen.workerLabels" $top) (include "tureen.selectorLabels" $top) (eq .role "worker") | fromYaml -}}
metadata:
  labels: {{- merge $labels $values.podLabels | toYaml | nindent 4 }}
  annotations:
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    checksum/config: {{ include (print $top.Template.BasePath "/configmap.yaml") $top | sha256sum }}
spec:
  serviceAccountName: {{ include "tureen.serviceAccountName" $top }}
  automountServiceAccountToken: false
  # The variables of a Service named tureen (TUREEN_PORT and more) would be read as the server's settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
  securityContext: {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- include "tureen.placing" . | nindent 2 }}
  {{- with include "tureen.initContainers" $top }}
  initContainers: {{- . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "tureen.container" . | nindent 6 | trim }}
    {{- with $values.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes: {{- include "tureen.volumes" $top | nindent 4 }}
{{- end -}}

{{/* Where the pods run, from what the values say and, for workers of batches, from their own. */}}
{{- define "tureen.placing" -}}
{{- $fields := pick .top.Values "imagePullSecrets" "priorityClassName" "runtimeClassName" "hostAliases" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" -}}
{{- if eq .role "worker" -}}
{{- $own := pick .top.Values.batches.workers "nodeSelector" "tolerations" -}}
{{- range $name, $value := $own }}{{ if $value }}{{ $_ := set $fields $name $value }}{{ end }}{{ end -}}
{{- end -}}
{{- range $name, $value := $fields }}
{{- with $value }}
{{ $name }}: {{ if kindIs "string" . }}{{ . }}{{ else }}{{- toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tureen.container" -}}
{{- $values := .top.Values -}}
name: server
image: {{ include "tureen.image" .top }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- if eq .role "follower" }}
command: [ray, start, "--address=$(LWS_LEADER_ADDRESS):{{ int $values.multiNode.port }}", --disable-usage-stats, --block]
{{- else if $values.multiNode.enabled }}
command:
  - sh
  - -c
  - ray start --head --port={{ int $values.multiNode.port }} --disable-usage-stats && exec tureen-serve "$@"
  - tureen-serve
{{- end }}
{{- if ne .role "follower" }}
args: [{{ if $values.starter }}--starter, {{ end }}--config, /etc/tureen/tureen.yaml]
{{- end }}
{{- with include "tureen.env" . }}
env: {{- . | nindent 2 }}
{{- end }}
{{- with $values.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne .role "follower" }}
ports:
  - {name: http, containerPort: 8900, protocol: TCP}
startupProbe: {{- include "tureen.probe" (dict "path" "/health/live" "times" $values.probes.startup) | nindent 2 }}
readinessProbe: {{- include "tureen.probe" (dict "path" "/health/ready" "times" $values.probes.readiness) | nindent 2 }}
livenessProbe: {{- include "tureen.probe" (dict "path" "/health/live" "times" $values.probes.liveness) | nindent 2 }}
{{- end }}
resources: {{- include "tureen.resources" . | nindent 2 }}
securityContext: {{- toYaml $values.securityContext | nindent 2 }}
volumeMounts: {{- include "tureen.mounts" .top | nindent 2 }}
{{- end -}}

{{- define "tureen.env" -}}
{{- $env := .top.Values.env -}}
{{- if and .top.Values.multiNode.enabled (eq .role "server") -}}
{{- $env = prepend $env (dict "name" "RAY_ADDRESS" "value" "auto") -}}
{{- end -}}
{{- if .top.Values.batches.workers.replicaCount -}}
{{- $env = prepend $env (dict "name" "TUREEN_BATCHES__WORKER" "value" (ternary "true" "false" (eq .role "worker"))) -}}
{{- end -}}
{{- with .top.Values.batches.store -}}
{{- if and .existingSecret $.top.Values.server.batches.enabled -}}
{{- $entry := dict "secretKeyRef" (dict "name" .existingSecret "key" .entry) -}}
{{- $env = prepend $env (dict "name" "TUREEN_BATCHES__STORE" "valueFrom" $entry) -}}
{{- end -}}
{{- end -}}
{{- if $env -}}{{- toYaml $env -}}{{- end -}}
{{- end -}}

{{- define "tureen.probe" -}}
httpGet: {path: {{ .path }}, port: http}
{{ toYaml .times }}
{{- end -}}

{{- define "tureen.resources" -}}
{{- $values := .top.Values -}}
{{- $resources := deepCopy $values.resources -}}
{{- if eq .role "worker" -}}
{{- $resources = deepCopy (default $values.resources $values.batches.workers.resources) -}}
{{- end -}}
{{- if $values.gpu.count -}}
{{- $resources = merge $resources (dict "limits" (dict $values.gpu.resource $values.gpu.count)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
