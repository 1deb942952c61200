{{/* Contradictions between the pod and what the server does in it. */}}

{{- define "tureen.guardDeadlines" -}}
{{- $limits := .Values.server.limits -}}
{{- $default := float64 (default 120 $limits.deadline_seconds) -}}
{{- $longest := float64 (default 600 $limits.longest_deadline_seconds) -}}
{{- if gt $default $longest -}}
{{- fail (printf "server.limits.deadline_seconds %v is more than longest_deadline_seconds %v" $default $longest) -}}
{{- end -}}
{{- range $name := list "deadline_seconds" "longest_deadline_seconds" -}}
{{- if and (hasKey $limits $name) (gt (float64 (index $limits $name)) (float64 $limits.grace_seconds)) -}}
{{- fail (printf "server.limits.%s %v is more than grace_seconds %v: a pod that ends would cut such a request; raise grace_seconds and terminationGracePeriodSeconds" $name (index $limits $name) $limits.grace_seconds) -}}
{{- end -}}
{{- end -}}
{{- range $name, $route := dict "ingress" .Values.ingress "httpRoute" .Values.httpRoute -}}
{{- if and $route.enabled (lt (float64 $route.timeoutSeconds) $longest) -}}
{{- fail (printf "%s.timeoutSeconds %d would cut requests that may take %v seconds: raise it, or lower server.limits.longest_deadline_seconds" $name (int $route.timeoutSeconds) $longest) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardProbes" -}}
{{- range $name, $probe := .Values.probes -}}
{{- if gt (int $probe.timeoutSeconds) (int $probe.periodSeconds) -}}
{{- fail (printf "probes.%s.timeoutSeconds %d is more than periodSeconds %d: probes would overlap" $name (int $probe.timeoutSeconds) (int $probe.periodSeconds)) -}}
{{- end -}}
{{- end -}}
{{- $least := dict "startup" 60 "liveness" 15 -}}
{{- range $name, $seconds := $least -}}
{{- $probe := index $.Values.probes $name -}}
{{- if lt (mul $probe.periodSeconds $probe.failureThreshold) $seconds -}}
{{- fail (printf "probes.%s kills a pod after %d seconds: let periodSeconds x failureThreshold be at least %d" $name (mul $probe.periodSeconds $probe.failureThreshold) $seconds) -}}
{{- end -}}
{{- end -}}
{{- $readiness := mul .Values.probes.readiness.periodSeconds .Values.probes.readiness.failureThreshold -}}
{{- if and (gt (float64 $readiness) (float64 .Values.server.limits.drain_seconds)) (gt (float64 .Values.server.limits.drain_seconds) 0.0) -}}
{{- fail (printf "probes.readiness needs %d seconds to see that a pod leaves, and server.limits.drain_seconds gives %v: lower one or raise the other" $readiness .Values.server.limits.drain_seconds) -}}
{{- end -}}
{{- if le (int .Values.progressDeadlineSeconds) (int .Values.minReadySeconds) -}}
{{- fail (printf "progressDeadlineSeconds %d must be more than minReadySeconds %d" (int .Values.progressDeadlineSeconds) (int .Values.minReadySeconds)) -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardAmounts" -}}
{{- $places := dict "resources" .Values.resources "batches.workers.resources" .Values.batches.workers.resources "artifacts.resources" .Values.artifacts.resources -}}
{{- range $place, $resources := $places -}}
{{- $limits := default dict $resources.limits -}}
{{- range $name, $request := default dict $resources.requests -}}
{{- if hasKey $limits $name -}}
{{- $limit := index $limits $name -}}
{{- if lt (float64 (include "tureen.amount" $limit)) (float64 (include "tureen.amount" $request)) -}}
{{- fail (printf "%s.limits.%s %v is less than %s.requests.%s %v" $place $name $limit $place $name $request) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.server.batches.enabled -}}
{{- $file := float64 (default 209715200 .Values.server.batches.file_bytes) -}}
{{- $uploads := float64 (default 4 .Values.server.batches.uploads) -}}
{{- if gt (mulf $file $uploads) (float64 (include "tureen.amount" .Values.tmp.size)) -}}
{{- fail (printf "tmp.size %s is less than %v uploads of server.batches.file_bytes %.0f: raise it, or lower server.batches.uploads" .Values.tmp.size $uploads $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardEnvironment" -}}
{{- $seen := dict -}}
{{- range .Values.env -}}
{{- if regexMatch "^TUREEN_(HOST|PORT|KEYS|CACHE)$" .name -}}
{{- fail (printf "env: %s is the chart's own: the Service, the probes and the mounts rely on it" .name) -}}
{{- else if hasPrefix "TUREEN_BATCHES__" .name -}}
{{- fail (printf "env: %s would override what the chart sets: use server.batches, batches.store and batches.workers" .name) -}}
{{- else if eq .name "TUREEN_ACCESS__ANONYMOUS" -}}
{{- fail "env: TUREEN_ACCESS__ANONYMOUS would serve everyone, and the chart sets keys: leave it out" -}}
{{- else if hasKey $seen .name -}}
{{- fail (printf "env: %s is set twice" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardDevice" -}}
{{- $device := .Values.server.device -}}
{{- $count := int .Values.gpu.count -}}
{{- if and (eq $device "cpu") $count -}}
{{- fail "gpu.count asks for devices that server.device cpu leaves idle: set one of them otherwise" -}}
{{- else if and (hasPrefix "cuda" $device) (not $count) -}}
{{- fail (printf "server.device %s needs gpu.count" $device) -}}
{{- else if and (hasPrefix "cuda:" $device) (ge (int (trimPrefix "cuda:" $device)) $count) -}}
{{- fail (printf "server.device %s is beyond gpu.count %d: devices are counted from 0" $device $count) -}}
{{- else if and $count (regexMatch "(^|[-_.])cpu$" .Values.image.tag) (not .Values.image.digest) -}}
{{- fail (printf "image.tag %s has no CUDA, and gpu.count asks for devices: use a -cuda tag, or leave it empty" .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardVllm" -}}
{{- $vllm := .Values.server.vllm -}}
{{- $devices := mul .Values.gpu.count (ternary .Values.multiNode.size 1 .Values.multiNode.enabled) -}}
{{- $parallel := int (default 1 $vllm.tensor_parallel) -}}
{{- if and (eq .Values.server.runtime "vllm") (not .Values.gpu.count) -}}
{{- fail "server.runtime vllm needs gpu.count: the images without CUDA have no vLLM" -}}
{{- else if and (gt $parallel 1) (gt $parallel (int $devices)) -}}
{{- fail (printf "server.vllm.tensor_parallel %d is more than the %d devices of a pod: raise gpu.count, or serve a model over several nodes with multiNode" $parallel $devices) -}}
{{- end -}}
{{- $shares := 0.0 -}}
{{- range $vllm.memory -}}{{- $shares = addf $shares . -}}{{- end -}}
{{- if gt $shares 1.000001 -}}
{{- fail (printf "server.vllm.memory: the shares add up to %v of a GPU: let them be at most 1" $shares) -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardMultiNode" -}}
{{- if .Values.multiNode.enabled -}}
{{- $devices := mul .Values.gpu.count .Values.multiNode.size -}}
{{- if ne .Values.server.runtime "vllm" -}}
{{- fail "multiNode.enabled needs server.runtime vllm: only vLLM serves a model over several nodes" -}}
{{- else if ne (int (default 1 .Values.server.vllm.tensor_parallel)) (int $devices) -}}
{{- fail (printf "multiNode: server.vllm.tensor_parallel must be %d, gpu.count x multiNode.size" $devices) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardNetwork" -}}
{{- $hosts := .Values.server.access.hosts -}}
{{- range $name, $asked := dict "ingress.hosts" (ternary .Values.ingress.hosts list .Values.ingress.enabled) "httpRoute.hostnames" (ternary .Values.httpRoute.hostnames list .Values.httpRoute.enabled) -}}
{{- range $asked -}}
{{- if and $hosts (not (has . $hosts)) (not (has "*" $hosts)) -}}
{{- fail (printf "%s: the server refuses the name %s: add it to server.access.hosts" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts" -}}
{{- else if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: the gateways that the route belongs to" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
{{- $needs := compact (list (ternary "artifacts.sources" "" (not (empty .Values.artifacts.sources))) (ternary "batches.store" "" (not (empty .Values.batches.store.existingSecret))) (ternary "server.batches.files" "" (not (empty .Values.server.batches.files))) (ternary "server.traces" "" (not (empty .Values.server.traces))) (ternary "an upstream in server.families" "" (contains "\"upstream\"" (toJson .Values.server.families)))) -}}
{{- if $needs -}}
{{- fail (printf "networkPolicy lets pods connect to nothing but DNS, and %s needs more: list it in networkPolicy.egress" (first $needs)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
