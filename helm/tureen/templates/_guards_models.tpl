{{/* Contradictions between the models that are named and the ways in which they come. */}}

{{- define "tureen.guardSources" -}}
{{- $seen := dict -}}
{{- range $index, $each := .Values.artifacts.sources -}}
{{- $where := printf "artifacts.sources.%d" $index -}}
{{- if has ".." (splitList "/" $each.to) -}}
{{- fail (printf "%s.to: %s leads out of /var/lib/tureen: name a folder below it, as rewards/helpful" $where $each.to) -}}
{{- end -}}
{{- range $other, $_ := $seen -}}
{{- if or (hasPrefix (printf "%s/" $other) (printf "%s/" $each.to)) (hasPrefix (printf "%s/" $each.to) (printf "%s/" $other)) -}}
{{- fail (printf "%s.to: %s and %s overlap: give each model a folder of its own" $where $each.to $other) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $seen $each.to true -}}
{{- if contains "://" $each.source -}}
{{- if not (regexMatch "^(s3|s3a|gs|gcs|az|abfs|abfss|https?|hf|oci|file)://" $each.source) -}}
{{- fail (printf "%s.source: the image has no driver for %s: use s3://, gs://, az://, https://, oci://, hf:// or file://" $where (regexFind "^[^:]+://" $each.source)) -}}
{{- end -}}
{{- if and (regexMatch "^https?://" $each.source) (not $each.digest) -}}
{{- fail (printf "%s.digest is needed for a web server: the SHA-256 of the archive, or of the artifact's tureen.json" $where) -}}
{{- end -}}
{{- if and $each.token (not (regexMatch "^(https?|hf|oci)://" $each.source)) -}}
{{- fail (printf "%s.token is for the hub, web servers and registries: give a store's credentials in artifacts.env or envFrom" $where) -}}
{{- end -}}
{{- else if not (or (hasPrefix "/" $each.source) (regexMatch "^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*(@[A-Za-z0-9_./-]+)?$" $each.source)) -}}
{{- fail (printf "%s.source: %s is a relative path: use a URL, org/name of the hub, or an absolute path" $where $each.source) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Every path that the server's settings name, with its place, as a list. */}}
{{- define "tureen.paths" -}}
{{- $found := list -}}
{{- $bases := .Values.server.bases -}}
{{- range $name, $folder := $bases -}}
{{- $found = append $found (dict "where" (printf "server.bases.%s" $name) "path" $folder) -}}
{{- end -}}
{{- range $index, $each := .Values.server.rewards -}}
{{- $found = append $found (dict "where" (printf "server.rewards.%d.path" $index) "path" $each.path "hub" true) -}}
{{- range $field := list "adapter_base" "tokenizer" -}}
{{- with index $each $field -}}
{{- $found = append $found (dict "where" (printf "server.rewards.%d.%s" $index $field) "path" . "hub" true) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.server.rewards_root -}}
{{- $found = append $found (dict "where" "server.rewards_root" "path" . "root" true) -}}
{{- end -}}
{{- range $index, $each := .Values.server.load_roots -}}
{{- $found = append $found (dict "where" (printf "server.load_roots.%d" $index) "path" $each "root" true) -}}
{{- end -}}
{{- range $index, $family := .Values.server.families -}}
{{- $where := printf "server.families.%d" $index -}}
{{- with $family.base -}}
{{- if and (contains "/" .) (not (hasKey $bases .)) -}}{{- $found = append $found (dict "where" (printf "%s.base" $where) "path" .) -}}{{- end -}}
{{- end -}}
{{- with $family.policy -}}{{- $found = append $found (dict "where" (printf "%s.policy" $where) "path" .) -}}{{- end -}}
{{- range $name, $expert := $family.experts -}}
{{- $path := $expert -}}
{{- if kindIs "map" $expert -}}{{- $path = $expert.path -}}{{- end -}}
{{- $found = append $found (dict "where" (printf "%s.experts.%v" $where $name) "path" $path) -}}
{{- end -}}
{{- end -}}
{{- dict "paths" $found | toJson -}}
{{- end -}}

{{- define "tureen.guardPaths" -}}
{{- $artifacts := .Values.artifacts -}}
{{- $folders := list -}}
{{- range $artifacts.sources -}}{{- $folders = append $folders (printf "/var/lib/tureen/%s" .to) -}}{{- end -}}
{{- range $artifacts.images -}}{{- $folders = append $folders (printf "/var/lib/images/%s" .name) -}}{{- end -}}
{{- range .Values.extraVolumeMounts -}}{{- $folders = append $folders (trimSuffix "/" .mountPath) -}}{{- end -}}
{{- range (include "tureen.paths" . | fromJson).paths -}}
{{- $path := trimSuffix "/" .path -}}
{{- $elsewhere := and .hub (or (contains "://" $path) (regexMatch "^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*(@.*)?$" $path)) -}}
{{- if and (not (hasPrefix "/" $path)) (not $elsewhere) -}}
{{- fail (printf "%s: %s is a relative path: write it from the root, as /var/lib/tureen/%s" .where .path (trimPrefix "./" .path)) -}}
{{- end -}}
{{- if and (regexMatch "^/var/lib/(tureen|images)(/|$)" $path) (not (and $artifacts.existingClaim (hasPrefix "/var/lib/tureen" $path))) -}}
{{- $known := false -}}
{{- $root := .root -}}
{{- range $folders -}}
{{- if hasPrefix (printf "%s/" .) (printf "%s/" $path) -}}{{- $known = true -}}{{- end -}}
{{- if and $root (hasPrefix (printf "%s/" $path) (printf "%s/" .)) -}}{{- $known = true -}}{{- end -}}
{{- end -}}
{{- if not $known -}}
{{- fail (printf "%s: nothing brings %s to the pods: set artifacts.sources, artifacts.images or artifacts.existingClaim" .where .path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.exclusiveArtifacts" -}}
{{- with .Values.artifacts -}}
{{- if and .sources (or .existingClaim .persistent) (ne .accessMode "ReadWriteMany") -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tureen.guardArtifacts" -}}
{{- $artifacts := .Values.artifacts -}}
{{- $several := include "tureen.severalPods" . -}}
{{- if and $artifacts.persistent (not $artifacts.sources) -}}
{{- fail "artifacts.persistent keeps what is fetched, and nothing is: set artifacts.sources, or artifacts.existingClaim for a claim that has the models" -}}
{{- else if and $artifacts.persistent $artifacts.existingClaim -}}
{{- fail "artifacts.persistent makes a claim and artifacts.existingClaim names one: keep one of them" -}}
{{- else if and (include "tureen.exclusiveArtifacts" .) $several -}}
{{- fail (printf "%s cannot fetch into one %s claim: set artifacts.accessMode to ReadWriteMany, or leave existingClaim and persistent out so that each pod fetches for itself" $several $artifacts.accessMode) -}}
{{- end -}}
{{- if and $artifacts.images (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "artifacts.images needs Kubernetes 1.31 or later, and this is %s: use artifacts.sources" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
