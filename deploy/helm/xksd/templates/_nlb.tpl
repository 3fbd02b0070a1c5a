{{/* Annotations for the AWS Load Balancer Controller, which wants all values as strings. */}}
{{- define "xksd.nlb" -}}
{{- with .Values.nlb -}}
{{- if .enabled -}}
{{- $prefix := "service.beta.kubernetes.io/aws-load-balancer-" -}}
{{- $attributes := merge (deepCopy .attributes) (dict "load_balancing.cross_zone.enabled" (toString .crossZone)) -}}
{{- $ofTargets := dict "preserve_client_ip.enabled" (toString .preserveClientIp) "deregistration_delay.timeout_seconds" (int64 .deregistrationDelay | toString) -}}
{{- $ofTargets = merge (deepCopy .targetGroupAttributes) $ofTargets -}}
{{ $prefix }}scheme: {{ .scheme }}
{{ $prefix }}nlb-target-type: ip
{{ $prefix }}healthcheck-protocol: http
{{ $prefix }}healthcheck-port: {{ int64 $.Values.ports.health | quote }}
{{ $prefix }}healthcheck-path: /readyz
{{ $prefix }}healthcheck-success-codes: "200"
{{ $prefix }}healthcheck-interval: {{ int64 .healthCheck.interval | quote }}
{{ $prefix }}healthcheck-timeout: {{ int64 .healthCheck.timeout | quote }}
{{ $prefix }}healthcheck-healthy-threshold: {{ int64 .healthCheck.healthyThreshold | quote }}
{{ $prefix }}healthcheck-unhealthy-threshold: {{ int64 .healthCheck.unhealthyThreshold | quote }}
{{ $prefix }}attributes: {{ include "xksd.pairs" $attributes }}
{{ $prefix }}target-group-attributes: {{ include "xksd.pairs" $ofTargets }}
{{- with .name }}
{{ $prefix }}name: {{ . }}
{{- end }}
{{- with .subnets }}
{{ $prefix }}subnets: {{ join "," . }}
{{- end }}
{{- with .securityGroups }}
{{ $prefix }}security-groups: {{ join "," . }}
{{- end }}
{{- with .annotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "xksd.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}{{- $pairs = append $pairs (printf "%s=%v" $key $value) -}}{{- end -}}
{{- join "," $pairs | quote -}}
{{- end -}}
