{{- define "relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "relay.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 59 | trimSuffix "-" -}}
{{- else if contains (include "relay.name" .) .Release.Name -}}
{{- .Release.Name | trunc 59 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "relay.name" .) | trunc 59 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "relay.selector" -}}
app.kubernetes.io/name: {{ include "relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "relay.labels" -}}
{{ include "relay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "relay.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "relay.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The port of an address such as 0.0.0.0:25 or [::]:25. */}}
{{- define "relay.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* Not empty where each pod has a volume of its own. */}}
{{- define "relay.stateful" -}}
{{- if or (eq .Values.spool.kind "volume") (and (eq .Values.spool.kind "postgresql") .Values.spool.postgresql.volumes) -}}yes{{- end -}}
{{- end -}}

{{/* What no schema can say, said before anything is installed. */}}
{{- define "relay.guard" -}}
{{- if and (gt (int .Values.replicas) 1) (ne .Values.spool.kind "postgresql") -}}
{{- fail "replicas: one relay for each spool; more than one need spool.kind postgresql" -}}
{{- end -}}
{{- if and (eq .Values.spool.kind "postgresql") (not .Values.spool.postgresql.url) -}}
{{- fail "spool.postgresql.url is missing: postgresql://USER@HOST/DATABASE" -}}
{{- end -}}
{{- if and .Values.spool.volume.existingClaim (ne .Values.spool.kind "volume") -}}
{{- fail "spool.volume.existingClaim is for spool.kind volume: one claim, one relay" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.web.enabled) -}}
{{- fail "serviceMonitor needs web.enabled: the page's server answers /metrics" -}}
{{- end -}}
{{- if (.Values.config.spool | default dict).url -}}
{{- fail "config.spool.url: where mail lives is said by spool.kind" -}}
{{- end -}}
{{- if and .Values.config.web (not .Values.web.enabled) -}}
{{- fail "config.web says how the page is, and web.enabled that there is none" -}}
{{- end -}}
{{- range .Values.config.upstreams -}}
{{- if and .client_secret (not (regexMatch "^(env|file|credential|keyring):" .client_secret)) -}}
{{- fail "config.upstreams: a client_secret written here could be read in the ConfigMap; put its Value into the Secret (secret.name)" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* relay's configuration: the values' own, and what a pod needs besides. As JSON, which is YAML, too. */}}
{{- define "relay.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $first := first $config.upstreams -}}
{{- $own := pick $first "client_secret" "certificate" "managed_identity" "federated_token_file" "user_login" -}}
{{- if and .Values.secret.name (not $own) -}}
{{- $_ := set $first "client_secret" "file:/run/secrets/relay/client-secret" -}}
{{- end -}}
{{- if not $config.listeners -}}
{{- $_ := set $config "listeners" (list (dict "bind" "0.0.0.0:25" "allow" .Values.clientNetworks)) -}}
{{- end -}}
{{- if eq .Values.spool.kind "none" -}}
{{- range $config.listeners -}}
{{- if eq (default "upstream" .answer_after) "spool" -}}
{{- fail "answer_after: spool promises to keep mail, and spool.kind none keeps none" -}}
{{- end -}}
{{- $_ := set . "answer_after" "upstream" -}}
{{- end -}}
{{- end -}}
{{- if .Values.web.enabled -}}
{{- $name := printf "%s-web" (include "relay.fullname" .) -}}
{{- $space := .Release.Namespace -}}
{{- $names := list $name (printf "%s.%s" $name $space) (printf "%s.%s.svc" $name $space) -}}
{{- $page := dict "bind" "0.0.0.0:8025" "names" $names "metrics_from" .Values.web.metricsFrom -}}
{{- $_ := set $config "web" (merge (default dict $config.web) $page) -}}
{{- end -}}
{{- $config | toJson -}}
{{- end -}}

{{/* The listeners as ports: [{name, container, service}] in JSON. */}}
{{- define "relay.ports" -}}
{{- $service := .Values.service.port -}}
{{- $ports := list -}}
{{- range $index, $listener := (include "relay.config" . | fromJson).listeners -}}
{{- $port := include "relay.port" $listener.bind | int -}}
{{- $name := ternary "smtp" (printf "smtp-%d" $port) (eq $index 0) -}}
{{- $ports = append $ports (dict "name" $name "container" $port "service" (ternary (int $service) $port (eq $index 0))) -}}
{{- end -}}
{{- dict "ports" $ports | toJson -}}
{{- end -}}

{{/* One probe: over HTTP where the page is, else by the command. */}}
{{- define "relay.probe" -}}
{{- $web := (include "relay.config" .root | fromJson).web -}}
{{- if .root.Values.web.enabled -}}
httpGet: {path: {{ .path }}, port: web{{ if $web.tls }}, scheme: HTTPS{{ end }}}
{{- else -}}
exec: {command: [relay, health{{ if eq .path "/healthz" }}, --live{{ end }}]}
{{- end -}}
{{- end -}}
