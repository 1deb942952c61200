{{/* What the pods mount. */}}

{{- define "tureen.mounts" -}}
- {name: config, mountPath: /etc/tureen, readOnly: true}
- {name: keys, mountPath: /run/secrets/tureen, readOnly: true}
- {name: cache, mountPath: /var/cache/tureen}
{{- if include "tureen.batchesFolder" . }}
- {name: batches, mountPath: /var/spool/tureen}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- if include "tureen.shmSize" . }}
- {name: shm, mountPath: /dev/shm}
{{- end }}
{{- if or .Values.artifacts.existingClaim .Values.artifacts.sources }}
- {name: artifacts, mountPath: /var/lib/tureen, readOnly: true}
{{- end }}
{{- range .Values.artifacts.images }}
- {name: image-{{ .name }}, mountPath: /var/lib/images/{{ .name }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tureen.shmSize" -}}
{{ default (ternary "2Gi" "" (gt (int .Values.gpu.count) 0)) .Values.shm.size }}
{{- end -}}

{{- define "tureen.volumes" -}}
- name: config
  configMap: {name: {{ include "tureen.fullname" . }}}
- name: keys
  secret:
    secretName: {{ include "tureen.keysSecret" . | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.keys.entry | quote }}, path: keys}
- name: cache
  {{- if .Values.cache.persistent }}
  persistentVolumeClaim: {claimName: {{ include "tureen.cacheClaim" . | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.cache.size | quote }}}
  {{- end }}
{{- if include "tureen.batchesFolder" . }}
- name: batches
  {{- if .Values.batches.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ include "tureen.batchesClaim" . | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.batches.persistence.size | quote }}}
  {{- end }}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.tmp.size | quote }}}
{{- with include "tureen.shmSize" . }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ . | quote }}}
{{- end }}
{{- include "tureen.artifactVolumes" . }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
