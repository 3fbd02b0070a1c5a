{{- define "xksd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is put behind it: -health-metrics is the longest. */}}
{{- define "xksd.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "xksd.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $whole | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "xksd.selectorLabels" -}}
app.kubernetes.io/name: {{ include "xksd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "xksd.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "xksd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "xksd.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "xksd.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Fails with all that must be set and is not. */}}
{{- define "xksd.check" -}}
{{- $config := .Values.config -}}
{{- $missing := list -}}
{{- if not .Values.image.repository -}}
{{- $missing = append $missing "image.repository: the image that deploy/container builds, in a registry of yours" -}}
{{- end -}}
{{- if not .Values.tls.existingSecret -}}
{{- $missing = append $missing "tls.existingSecret: a Secret of type kubernetes.io/tls with the server's certificate and key" -}}
{{- end -}}
{{- if and .Values.configToml (or $config .Values.softhsm.enabled) -}}
{{- fail "configToml is all of the configuration: there can be neither config nor softhsm.enabled beside it" -}}
{{- end -}}
{{- if not .Values.configToml -}}
{{- if and (not $config.tokens) (not .Values.softhsm.enabled) -}}
{{- $missing = append $missing "config.tokens: an HSM token at least (docs/configuration.md), or configToml" -}}
{{- end -}}
{{- if not $config.keystores -}}
{{- $missing = append $missing "config.keystores: a key store at least (docs/configuration.md), or configToml" -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "these values must be set:\n  %s" (join "\n  " $missing)) -}}
{{- end -}}
{{- end -}}

{{- define "xksd.image" -}}
{{- $repository := .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "xksd.kind" -}}
{{- ternary "StatefulSet" "Deployment" .Values.persistence.enabled -}}
{{- end -}}

{{- define "xksd.fleetSize" -}}
{{- if .Values.fleetSize -}}
{{- int64 .Values.fleetSize -}}
{{- else if .Values.autoscaling.enabled -}}
{{- int64 .Values.autoscaling.maxReplicas -}}
{{- else -}}
{{- max 1 (int64 .Values.replicaCount) -}}
{{- end -}}
{{- end -}}

{{/* ADDRESS:PORT; the argument is a list of the root and the port. */}}
{{- define "xksd.listen" -}}
{{- $address := (index . 0).Values.listenAddress -}}
{{- $host := ternary (printf "[%s]" $address) $address (contains ":" $address) -}}
{{- printf "%s:%d" $host (int64 (index . 1)) -}}
{{- end -}}

{{/* How many tokens the configuration has, for the time that the end of their libraries takes. */}}
{{- define "xksd.tokens" -}}
{{- if .Values.configToml -}}
{{- regexFindAll "(?m)^\\s*\\[tokens\\.[^.\\]]+\\]" .Values.configToml -1 | len | max 1 -}}
{{- else -}}
{{- max 1 (add (len (default dict .Values.config.tokens)) (ternary 1 0 .Values.softhsm.enabled)) -}}
{{- end -}}
{{- end -}}

{{/* The daemon takes drain.delay, drain.timeout, seven seconds for each token, and what it needs to write
     its audit log, counts and traces. */}}
{{- define "xksd.gracePeriod" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int64 .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- $tokens := include "xksd.tokens" . | int64 -}}
{{- add .Values.preStopSleep .Values.drain.delay .Values.drain.timeout (mul 7 $tokens) 15 -}}
{{- end -}}
{{- end -}}

{{/* The same for every container: what Pod Security calls restricted, and a read-only file system. */}}
{{- define "xksd.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: {{ int64 .Values.runAsUser }}
runAsGroup: {{ int64 .Values.runAsGroup }}
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
