{{/* What the chart decides of the configuration, as a map in YAML: what other objects have to agree with. */}}
{{- define "xksd.owned" -}}
server:
  listen: {{ include "xksd.listen" (list . .Values.ports.xks) | quote }}
  tls:
    certificate: /secrets/tls/tls.crt
    private_key: /secrets/tls/tls.key
  drain:
    delay: {{ printf "%ds" (int64 .Values.drain.delay) }}
    timeout: {{ printf "%ds" (int64 .Values.drain.timeout) }}
ops:
  listen: {{ include "xksd.listen" (list . .Values.ports.health) | quote }}
  metrics_listen: {{ include "xksd.listen" (list . .Values.ports.metrics) | quote }}
  control_socket: /run/xksd/control.sock
reload:
  on_change: {{ .Values.reloadOnChange | quote }}
fleet:
  size: {{ include "xksd.fleetSize" . }}
{{- if .Values.persistence.enabled }}
state:
  directory: /var/lib/xksd/state
{{- end }}
{{- if .Values.softhsm.enabled }}
tokens:
  softhsm:
    module: {{ .Values.softhsm.module | quote }}
    label: {{ .Values.softhsm.label | quote }}
    pin:
      file: /secrets/{{ .Values.softhsm.secret }}/pin
    environment:
      SOFTHSM2_CONF: /etc/xksd/softhsm2.conf
{{- end }}
{{- end -}}

{{/* xksd.toml. */}}
{{- define "xksd.config" -}}
{{- $config := .Values.config -}}
{{- $toml := "" -}}
{{- if .Values.configToml -}}
{{- $toml = .Values.configToml -}}
{{- else -}}
{{- $owned := include "xksd.owned" . | fromYaml -}}
{{- $twice := include "xksd.twice" (dict "theirs" $config "ours" $owned "path" "config") -}}
{{- if $twice -}}
{{- fail (printf "the chart sets these by other values, see its README:%s" $twice) -}}
{{- end -}}
{{- $whole := mergeOverwrite (dict "version" 1) (deepCopy $config) $owned -}}
{{- $toml = include "xksd.toml" (dict "table" $whole "path" "") | trimPrefix "\n" -}}
{{- end -}}
{{- range regexFindAll "/secrets/[A-Za-z0-9._-]+" $toml -1 | uniq -}}
{{- $name := trimPrefix "/secrets/" . -}}
{{- if and (ne $name "tls") (not (hasKey $.Values.secrets $name)) -}}
{{- fail (printf "config names %s, and secrets has no %q" . $name) -}}
{{- end -}}
{{- end -}}
{{- $toml -}}
{{- end -}}

{{/* The settings of ours that are in a configuration already. */}}
{{- define "xksd.twice" -}}
{{- $here := . -}}
{{- range $key, $ours := .ours -}}
{{- if hasKey $here.theirs $key -}}
{{- $theirs := index $here.theirs $key -}}
{{- $path := printf "%s.%s" $here.path $key -}}
{{- if and (kindIs "map" $ours) (kindIs "map" $theirs) -}}
{{- include "xksd.twice" (dict "theirs" $theirs "ours" $ours "path" $path) -}}
{{- else if not (kindIs "invalid" $theirs) }} {{ $path }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A map as TOML: what has a value by itself, then tables, each with its whole path. Helm's toToml makes
     1.0 of every 1, which is another type in TOML. */}}
{{- define "xksd.toml" -}}
{{- $here := . -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "invalid" $value) (include "xksd.isTable" (list $here.path $value))) }}
{{ include "xksd.tomlKey" $key }} = {{ include "xksd.tomlValue" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- $form := include "xksd.isTable" (list $here.path $value) -}}
{{- $path := printf "%s%s" (ternary (printf "%s." $here.path) "" (ne $here.path "")) (include "xksd.tomlKey" $key) -}}
{{- if eq $form "table" }}
{{- if include "xksd.hasValues" (list $path $value) }}

[{{ $path }}]
{{- end }}
{{- include "xksd.toml" (dict "table" $value "path" $path) -}}
{{- else if eq $form "tables" -}}
{{- range $value }}

[[{{ $path }}]]
{{- include "xksd.toml" (dict "table" . "path" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "table", "tables", or nothing: a place of a secret, { file = ... }, is written in one line. */}}
{{- define "xksd.isTable" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- $nested := or (eq $path "") (ne (len $value) 1) -}}
{{- range $value -}}{{- if kindIs "map" . -}}{{- $nested = true -}}{{- end -}}{{- end -}}
{{- if $nested -}}table{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- if and $value (kindIs "map" (first $value)) -}}tables{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether a table has more than other tables, and so a line of its own. */}}
{{- define "xksd.hasValues" -}}
{{- $path := index . 0 -}}
{{- range $value := index . 1 -}}
{{- if not (or (kindIs "invalid" $value) (include "xksd.isTable" (list $path $value))) -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{- define "xksd.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toRawJson . }}{{- end -}}
{{- end -}}

{{/* JSON's strings are TOML's, and so are its escapes. */}}
{{- define "xksd.tomlValue" -}}
{{- if kindIs "slice" . -}}
[{{ range $index, $value := . }}{{ if $index }}, {{ end }}{{ include "xksd.tomlValue" $value }}{{ end }}]
{{- else if kindIs "map" . -}}
{ {{ range $key, $value := . }}{{ include "xksd.tomlKey" $key }} = {{ include "xksd.tomlValue" $value }}{{ end }} }
{{- else if kindIs "float64" . -}}
{{- ternary (printf "%d" (int64 .)) (toRawJson .) (eq . (floor .)) -}}
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{/* What we set, as variables that take the place of what a TOML string says. The argument is a map and
     the beginning of their names. */}}
{{- define "xksd.overrides" -}}
{{- $here := . -}}
{{- range $key, $value := .table -}}
{{- $name := printf "%s%s" $here.path (upper $key) -}}
{{- if kindIs "map" $value -}}
{{- include "xksd.overrides" (dict "table" $value "path" (printf "%s__" $name)) -}}
{{- else }}
- name: {{ $name }}
  value: {{ ternary (printf "%d" (int64 $value)) (toString $value) (kindIs "float64" $value) | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
