{{/* What Deployment and StatefulSet make: one xksd. */}}
{{- define "xksd.pod" -}}
metadata:
  labels:
    {{- include "xksd.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: xksd
    {{- if not .Values.configToml }}
    # Of what xksd reads only when it starts; all else of the configuration it reloads by itself.
    xksd/start-only: {{ pick .Values.config "audit" "log" "state" "traces" | toJson | sha256sum | trunc 16 | quote }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "xksd.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "xksd.gracePeriod" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ int64 .Values.runAsUser }}
    runAsGroup: {{ int64 .Values.runAsGroup }}
    fsGroup: {{ int64 .Values.fsGroup }}
    # Else each start would let the group write to the audit log's directory, which xksd refuses.
    fsGroupChangePolicy: OnRootMismatch
    {{- with .Values.supplementalGroups }}
    supplementalGroups:
      {{- range . }}
      - {{ int64 . }}
      {{- end }}
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- with include "xksd.initContainers" . }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: xksd
      image: {{ include "xksd.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/usr/bin/xksd]
      args: [serve, --config, /etc/xksd/xksd.toml]
      {{- with include "xksd.env" . }}
      {{- . | nindent 6 }}
      {{- end }}
      ports:
        - name: xks
          containerPort: {{ int64 .Values.ports.xks }}
        - name: health
          containerPort: {{ int64 .Values.ports.health }}
        - name: metrics
          containerPort: {{ int64 .Values.ports.metrics }}
      {{- if .Values.preStopSleep }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ int64 .Values.preStopSleep }}
      {{- end }}
      startupProbe:
        httpGet: {path: /livez, port: health}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: health}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: health}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- $security := include "xksd.containerSecurity" . | fromYaml }}
        {{- if .Values.lockMemory }}
        {{- $_ := set $security.capabilities "add" (list "IPC_LOCK") }}
        {{- end }}
        {{- toYaml $security | nindent 8 }}
      volumeMounts:
        {{- include "xksd.mounts" . | nindent 8 }}
  volumes:
    - name: config
      configMap:
        name: {{ include "xksd.fullname" . }}
        defaultMode: 0440
    - name: run
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    - name: secret-tls
      secret:
        secretName: {{ .Values.tls.existingSecret }}
        defaultMode: 0440
    {{- range $name, $secret := .Values.secrets }}
    - name: secret-{{ $name }}
      secret:
        secretName: {{ default (printf "%s-%s" (include "xksd.fullname" $) $name) $secret.existingSecret }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.softhsm.enabled }}
    - name: softhsm
      {{- if .Values.softhsm.persistence.enabled }}
      persistentVolumeClaim:
        claimName: {{ include "xksd.fullname" . }}-softhsm
      {{- else }}
      emptyDir: {}
      {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "xksd.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "xksd.env" -}}
{{- $overrides := "" -}}
{{- if .Values.configToml -}}
{{- $overrides = include "xksd.overrides" (dict "table" (include "xksd.owned" . | fromYaml) "path" "XKSD_") -}}
{{- end -}}
{{- if or $overrides .Values.extraEnv -}}
env:
{{- with $overrides }}
  {{- trim . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "xksd.mounts" -}}
- name: config
  mountPath: /etc/xksd
  readOnly: true
- name: run
  mountPath: /run/xksd
- name: secret-tls
  mountPath: /secrets/tls
  readOnly: true
{{- range $name, $_ := .Values.secrets }}
- name: secret-{{ $name }}
  mountPath: /secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- if .Values.persistence.enabled }}
- name: state
  mountPath: /var/lib/xksd
{{- end }}
{{- if .Values.softhsm.enabled }}
- name: softhsm
  mountPath: /var/lib/softhsm
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "xksd.initContainers" -}}
{{- $inits := list -}}
{{- $security := include "xksd.containerSecurity" . | fromYaml -}}
{{- range .Values.extraInitContainers -}}
{{- $inits = append $inits (merge (deepCopy .) (dict "securityContext" $security)) -}}
{{- end -}}
{{- $ours := dict "image" (include "xksd.image" .) "imagePullPolicy" .Values.image.pullPolicy -}}
{{- $_ := set $ours "securityContext" $security -}}
{{- $_ := set $ours "volumeMounts" (include "xksd.mounts" . | fromYamlArray) -}}
{{- with (include "xksd.env" . | fromYaml).env -}}
{{- $_ := set $ours "env" . -}}
{{- end -}}
{{- with .Values.resources -}}
{{- $_ := set $ours "resources" . -}}
{{- end -}}
{{- if and .Values.persistence.enabled .Values.persistence.initState -}}
{{- $args := list "state" "init" "--if-missing" "--config" "/etc/xksd/xksd.toml" -}}
{{- $inits = append $inits (merge (dict "name" "init-state" "command" (list "/usr/bin/xksd") "args" $args) $ours) -}}
{{- end -}}
{{- if .Values.softhsm.enabled -}}
{{- $command := list "/bin/sh" "-euc" (include "xksd.softhsmScript" .) -}}
{{- $inits = append $inits (merge (dict "name" "init-softhsm" "command" $command) $ours) -}}
{{- end -}}
{{- with $inits -}}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Makes token and keys, those that are not there. PINs are seen in the list of processes of this pod. */}}
{{- define "xksd.softhsmScript" -}}
export SOFTHSM2_CONF=/etc/xksd/softhsm2.conf
secrets=/secrets/{{ .Values.softhsm.secret }}
if ! softhsm2-util --show-slots | grep -Eq '^ *Label: *{{ .Values.softhsm.label }} *$'; then
  softhsm2-util --init-token --free --label '{{ .Values.softhsm.label }}' \
    --pin "$(cat "$secrets/pin")" --so-pin "$(cat "$secrets/so-pin")"
fi
for key in {{ join " " .Values.softhsm.keys }}; do
  xksd keys describe "$key" --token softhsm --config /etc/xksd/xksd.toml ||
    xksd keys create "$key" --token softhsm --config /etc/xksd/xksd.toml
done
{{- end -}}

{{- define "xksd.placement" -}}
{{- $zones := list (list "topology.kubernetes.io/zone" .Values.topologySpread.zone) (list "kubernetes.io/hostname" .Values.topologySpread.node) -}}
{{- if or .Values.topologySpread.zone .Values.topologySpread.node }}
topologySpreadConstraints:
  {{- range $zones }}
  {{- if index . 1 }}
  - topologyKey: {{ index . 0 }}
    whenUnsatisfiable: {{ index . 1 }}
    maxSkew: 1
    labelSelector:
      matchLabels:
        {{- include "xksd.selectorLabels" $ | nindent 8 }}
    # Pods of one version are spread among themselves, so that a rollout ends well spread, too.
    matchLabelKeys: [{{ ternary "controller-revision-hash" "pod-template-hash" $.Values.persistence.enabled }}]
  {{- end }}
  {{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "affinity" "tolerations" }}
{{- with index $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
