{{/* Values that contradict one another fail here, with a sentence that says what to change. */}}

{{- define "tureen.guards" -}}
{{- include "tureen.guardModels" . -}}
{{- include "tureen.guardKeys" . -}}
{{- include "tureen.guardShutdown" . -}}
{{- include "tureen.guardCache" . -}}
{{- include "tureen.guardBatches" . -}}
{{- include "tureen.guardRollout" . -}}
{{- include "tureen.guardDevice" . -}}
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

{{- define "tureen.guardCache" -}}
{{- if and (include "tureen.exclusiveCache" .) (gt (int .Values.replicaCount) 1) -}}
{{- fail (printf "replicaCount %d cannot share a %s cache: set cache.accessMode to ReadWriteMany or cache.persistent to false" (int .Values.replicaCount) .Values.cache.accessMode) -}}
{{- end -}}
{{- if and .Values.cache.existingClaim (not .Values.cache.persistent) -}}
{{- fail "cache.existingClaim is set but cache.persistent is false: keep one of them" -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardBatches" -}}
{{- $kept := .Values.batches.persistence -}}
{{- $shared := and $kept.enabled (eq $kept.accessMode "ReadWriteMany") -}}
{{- if and .Values.server.batches.enabled (gt (int .Values.replicaCount) 1) -}}
{{- if not .Values.batches.store.existingSecret -}}
{{- fail (printf "replicaCount %d needs one store of batches: set batches.store.existingSecret, or server.batches.enabled to false" (int .Values.replicaCount)) -}}
{{- else if not (or .Values.server.batches.files $shared) -}}
{{- fail (printf "replicaCount %d needs one place for files: set server.batches.files, or batches.persistence to a ReadWriteMany claim, or server.batches.enabled to false" (int .Values.replicaCount)) -}}
{{- end -}}
{{- end -}}
{{- if and $kept.existingClaim (not $kept.enabled) -}}
{{- fail "batches.persistence.existingClaim is set but batches.persistence.enabled is false: keep one of them" -}}
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
{{- end -}}

{{- define "tureen.guardRollout" -}}
{{- include "tureen.guardSurge" . -}}
{{- if not (or .Values.rollout.maxSurge .Values.rollout.maxUnavailable) -}}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0: no pod could ever be replaced" -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardDevice" -}}
{{- $device := .Values.server.device -}}
{{- if and (eq $device "cpu") .Values.gpu.count -}}
{{- fail "gpu.count asks for devices that server.device cpu leaves idle: set one of them otherwise" -}}
{{- else if and (hasPrefix "cuda" $device) (not .Values.gpu.count) -}}
{{- fail (printf "server.device %s needs gpu.count" $device) -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardMonitoring" -}}
{{- $scrape := .Values.monitoring.serviceMonitor -}}
{{- if and $scrape.enabled (not $scrape.key.existingSecret) -}}
{{- fail "the server answers /metrics only with a key: set monitoring.serviceMonitor.key.existingSecret" -}}
{{- end -}}
{{- end -}}
