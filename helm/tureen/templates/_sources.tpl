{{/* How models come to the pods: the volumes that hold them, and the init container that fetches them. */}}

{{- define "tureen.artifactVolumes" -}}
{{- with .Values.artifacts }}
{{- if and .existingClaim (not .sources) }}
- name: artifacts
  persistentVolumeClaim: {claimName: {{ .existingClaim | quote }}, readOnly: true}
{{- else if or .existingClaim (and .sources .persistent) }}
- name: artifacts
  persistentVolumeClaim: {claimName: {{ include "tureen.artifactsClaim" $ | quote }}}
{{- else if .sources }}
- name: artifacts
  emptyDir: {sizeLimit: {{ .size | quote }}}
{{- end }}
{{- range $index, $each := .sources }}
{{- with $each.token }}
- name: token-{{ $index }}
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .entry | quote }}, path: token}
{{- end }}
{{- end }}
{{- range .images }}
- name: image-{{ .name }}
  image: {reference: {{ .reference | quote }}, pullPolicy: {{ default "IfNotPresent" .pullPolicy }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The file of `tureen-serve fetch --sources`. */}}
{{- define "tureen.sourcesFile" -}}
{{- $entries := list -}}
{{- range $index, $each := .Values.artifacts.sources -}}
{{- $entry := omit $each "token" -}}
{{- if $each.token -}}
{{- $entry = merge $entry (dict "token_file" (printf "/run/secrets/fetch/%d/token" $index)) -}}
{{- end -}}
{{- $entries = append $entries $entry -}}
{{- end -}}
{{- dict "sources" $entries | toYaml -}}
{{- end -}}

{{- define "tureen.initContainers" -}}
{{- with .Values.extraInitContainers -}}
{{ toYaml . }}
{{ end -}}
{{- if .Values.artifacts.sources -}}
- name: fetch
  image: {{ include "tureen.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [fetch, --sources, /etc/tureen/sources.yaml, --to, /var/lib/tureen]
  {{- with .Values.artifacts.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.artifacts.envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  resources: {{- toYaml .Values.artifacts.resources | nindent 4 }}
  securityContext: {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts:
    - {name: config, mountPath: /etc/tureen, readOnly: true}
    - {name: artifacts, mountPath: /var/lib/tureen}
    - {name: tmp, mountPath: /tmp}
    {{- range $index, $each := .Values.artifacts.sources }}
    {{- if $each.token }}
    - {name: token-{{ $index }}, mountPath: /run/secrets/fetch/{{ $index }}, readOnly: true}
    {{- end }}
    {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}
