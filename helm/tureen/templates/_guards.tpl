{{/* Values that contradict one another fail here, with a sentence that says what to change. */}}

{{- define "tureen.guards" -}}
{{- include "tureen.guardModels" . -}}
{{- include "tureen.guardSources" . -}}
{{- include "tureen.guardPaths" . -}}
{{- include "tureen.guardKeys" . -}}
{{- include "tureen.guardShutdown" . -}}
{{- include "tureen.guardDeadlines" . -}}
{{- include "tureen.guardProbes" . -}}
{{- include "tureen.guardAmounts" . -}}
{{- include "tureen.guardEnvironment" . -}}
{{- include "tureen.guardAutoscaling" . -}}
{{- include "tureen.guardCache" . -}}
{{- include "tureen.guardArtifacts" . -}}
{{- include "tureen.guardBatches" . -}}
{{- include "tureen.guardWorkers" . -}}
{{- include "tureen.guardRollout" . -}}
{{- include "tureen.guardDevice" . -}}
{{- include "tureen.guardVllm" . -}}
{{- include "tureen.guardMultiNode" . -}}
{{- include "tureen.guardNetwork" . -}}
{{- include "tureen.guardMonitoring" . -}}
{{- end -}}

{{- define "tureen.guardModels" -}}
{{- $named := or .Values.server.rewards .Values.server.families .Values.server.rewards_root -}}
{{- if and .Values.starter $named -}}
{{- fail "starter serves the packaged models: set it to false to serve server.rewards, rewards_root and families" -}}
{{- else if not (or .Values.starter $named) -}}
{{- fail "there is nothing to serve: set server.rewards, rewards_root or families, or starter to true" -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardKeys" -}}
{{- $given := compact (list .Values.keys.existingSecret (ternary "entries" "" (not (empty .Values.keys.entries))) (ternary "values" "" (not (empty .Values.keys.values)))) -}}
{{- if gt (len $given) 1 -}}
{{- fail "keys.existingSecret, keys.entries and keys.values exclude one another: keep one of them" -}}
{{- else if not $given -}}
{{- fail "the server does not listen beyond its pod without keys: set keys.existingSecret, keys.entries or keys.values" -}}
{{- end -}}
{{- range $index, $key := .Values.keys.values -}}
{{- if not (hasPrefix "sha256:" $key) -}}
{{- if regexMatch "changeme|change-me|example|letmein|passwor|placeholder|qwerty|replace|secret|your" (lower $key) -}}
{{- fail (printf "keys.values.%d holds a word that keys of examples have: make one with `openssl rand -hex 32`" $index) -}}
{{- else if lt (len (uniq (splitList "" $key))) 7 -}}
{{- fail (printf "keys.values.%d can be guessed, because it repeats itself: make one with `openssl rand -hex 32`" $index) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardShutdown" -}}
{{- $limits := .Values.server.limits -}}
{{- $needed := addf $limits.drain_seconds $limits.grace_seconds 5 -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds must be more than %v: server.limits.drain_seconds + grace_seconds + 5" $needed) -}}
{{- end -}}
{{- end -}}

{{- define "tureen.exclusiveCache" -}}
{{- if and .Values.cache.persistent (ne .Values.cache.accessMode "ReadWriteMany") -}}true{{- end -}}
{{- end -}}

{{/* "replicaCount 2", or what else makes several pods. */}}
{{- define "tureen.severalPods" -}}
{{- $most := int (include "tureen.mostPods" .) -}}
{{- if gt $most 1 -}}
{{- if .Values.autoscaling.by -}}autoscaling.maxReplicas {{ int .Values.autoscaling.maxReplicas }}
{{- else if gt (int .Values.replicaCount) 1 -}}replicaCount {{ int .Values.replicaCount }}
{{- else if .Values.multiNode.enabled -}}multiNode.size {{ int .Values.multiNode.size }}
{{- else -}}batches.workers.replicaCount {{ int .Values.batches.workers.replicaCount }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardCache" -}}
{{- $several := include "tureen.severalPods" . -}}
{{- if and (include "tureen.exclusiveCache" .) $several -}}
{{- fail (printf "%s cannot share a %s cache: set cache.accessMode to ReadWriteMany or cache.persistent to false" $several .Values.cache.accessMode) -}}
{{- end -}}
{{- if and .Values.cache.existingClaim (not .Values.cache.persistent) -}}
{{- fail "cache.existingClaim is set but cache.persistent is false: keep one of them" -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardBatches" -}}
{{- $kept := .Values.batches.persistence -}}
{{- $several := include "tureen.severalPods" . -}}
{{- $shared := and $kept.enabled (eq $kept.accessMode "ReadWriteMany") -}}
{{- if and .Values.server.batches.enabled $several -}}
{{- if not .Values.batches.store.existingSecret -}}
{{- fail (printf "%s needs one store of batches: set batches.store.existingSecret, or server.batches.enabled to false" $several) -}}
{{- else if not (or .Values.server.batches.files $shared) -}}
{{- fail (printf "%s needs one place for files: set server.batches.files, or batches.persistence to a ReadWriteMany claim, or server.batches.enabled to false" $several) -}}
{{- end -}}
{{- end -}}
{{- if and $kept.existingClaim (not $kept.enabled) -}}
{{- fail "batches.persistence.existingClaim is set but batches.persistence.enabled is false: keep one of them" -}}
{{- end -}}
{{- with .Values.server.batches.files -}}
{{- if not (regexMatch "^(s3|s3a|gs|gcs|az|abfs|abfss|file)://" .) -}}
{{- fail (printf "server.batches.files: the image has no driver for %s: use s3://, gs:// or az://, or batches.persistence" (regexFind "^[^:]+://" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardWorkers" -}}
{{- if .Values.batches.workers.replicaCount -}}
{{- if not .Values.server.batches.enabled -}}
{{- fail "batches.workers.replicaCount is set but server.batches.enabled is false: keep one of them" -}}
{{- else if hasKey .Values.server.batches "worker" -}}
{{- fail "server.batches.worker is set by batches.workers.replicaCount: the workers run batches, and the other pods none; leave it out" -}}
{{- else if .Values.multiNode.enabled -}}
{{- fail "batches.workers are pods of one node, and multiNode.enabled serves a model over several: leave the batches to the groups" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardSurge" -}}
{{- if and (include "tureen.exclusiveCache" .) (gt (int .Values.rollout.maxSurge) 0) -}}
{{- fail (printf "rollout.maxSurge must be 0: a new pod cannot mount the %s cache beside the old one" .Values.cache.accessMode) -}}
{{- end -}}
{{- if and (include "tureen.batchesOnClaim" .) (gt (int .Values.rollout.maxSurge) 0) -}}
{{- if ne .Values.batches.persistence.accessMode "ReadWriteMany" -}}
{{- fail (printf "rollout.maxSurge must be 0: a new pod cannot mount the %s claim of batches beside the old one" .Values.batches.persistence.accessMode) -}}
{{- else if not .Values.batches.store.existingSecret -}}
{{- fail "rollout.maxSurge must be 0: a new pod cannot share the SQLite database of batches with the old one; or set batches.store.existingSecret" -}}
{{- end -}}
{{- end -}}
{{- if and (include "tureen.exclusiveArtifacts" .) (gt (int .Values.rollout.maxSurge) 0) -}}
{{- fail (printf "rollout.maxSurge must be 0: a new pod cannot mount the %s claim of artifacts beside the old one" .Values.artifacts.accessMode) -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardRollout" -}}
{{- include "tureen.guardSurge" . -}}
{{- if not (or .Values.rollout.maxSurge .Values.rollout.maxUnavailable) -}}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0: no pod could ever be replaced" -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardAutoscaling" -}}
{{- with .Values.autoscaling -}}
{{- if .by -}}
{{- if lt (int .maxReplicas) (int .minReplicas) -}}
{{- fail (printf "autoscaling.maxReplicas %d is less than minReplicas %d" (int .maxReplicas) (int .minReplicas)) -}}
{{- else if and (eq .by "keda") (not .keda.serverAddress) -}}
{{- fail "autoscaling.by keda asks Prometheus: set autoscaling.keda.serverAddress" -}}
{{- else if and (eq .by "keda") (gt (int .keda.fallbackReplicas) (int .maxReplicas)) -}}
{{- fail (printf "autoscaling.keda.fallbackReplicas %d is more than maxReplicas %d" (int .keda.fallbackReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardMonitoring" -}}
{{- $service := .Values.monitoring.serviceMonitor -}}
{{- $pod := .Values.monitoring.podMonitor -}}
{{- if and $service.enabled $pod.enabled -}}
{{- fail "monitoring.serviceMonitor and monitoring.podMonitor would count every pod twice: keep one of them" -}}
{{- end -}}
{{- range $name, $scrape := dict "serviceMonitor" $service "podMonitor" $pod -}}
{{- if and $scrape.enabled (not $scrape.key.existingSecret) (not $.Values.server.access.open_metrics) -}}
{{- fail (printf "the server answers /metrics only with a key: set monitoring.%s.key.existingSecret" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
