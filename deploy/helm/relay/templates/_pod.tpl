{{/* The pod, whatever makes it. */}}
{{- define "relay.pod" -}}
{{- $ports := (include "relay.ports" . | fromJson).ports -}}
{{- $config := include "relay.config" . | fromJson -}}
{{- $privileged := false -}}
{{- range $ports -}}{{- if lt (int .container) 1024 -}}{{- $privileged = true -}}{{- end -}}{{- end -}}
metadata:
  labels:
    {{- include "relay.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    # a changed configuration makes a new pod
    checksum/config: {{ include "relay.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  serviceAccountName: {{ include "relay.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false # a Service named relay would set RELAY_PORT and others
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
    {{- if $privileged }}
    sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "0"}] # port 25 without root; a safe sysctl
    {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: relay
      image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      env:
        - {name: RELAY_CONFIG, value: /etc/relay/config.yaml}
        {{- if eq .Values.spool.kind "postgresql" }}
        - {name: RELAY_SPOOL_URL, value: {{ .Values.spool.postgresql.url | quote }}}
        {{- with .Values.spool.postgresql.passwordSecret }}
        {{- if .name }}
        - {name: PGPASSWORD, valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- with .Values.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        {{- range $ports }}
        - {name: {{ .name }}, containerPort: {{ .container }}}
        {{- end }}
        {{- if .Values.web.enabled }}
        - {name: web, containerPort: {{ include "relay.port" $config.web.bind }}}
        {{- end }}
      # the first start of a newer release may rebuild a large spool; on a shared one it waits for relays of an older release to go
      startupProbe:
        {{- include "relay.probe" (dict "root" . "path" "/readyz") | nindent 8 }}
        periodSeconds: 2
        timeoutSeconds: 10
        failureThreshold: {{ ternary 2147483647 300 (eq .Values.spool.kind "postgresql") }}
      readinessProbe:
        {{- include "relay.probe" (dict "root" . "path" "/readyz") | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 10
      livenessProbe:
        {{- include "relay.probe" (dict "root" . "path" "/healthz") | nindent 8 }}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 4
      {{- with .Values.resources }}
      resources: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: spool, mountPath: /var/lib/relay}
        - {name: tmp, mountPath: /tmp}
        - {name: config, mountPath: /etc/relay, readOnly: true}
        {{- if .Values.secret.name }}
        - {name: secret, mountPath: /run/secrets/relay, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: {{ .Values.tmpSize }}}}
    - {name: config, configMap: {name: {{ include "relay.fullname" . }}}}
    {{- if .Values.secret.name }}
    - {name: secret, secret: {secretName: {{ .Values.secret.name }}, defaultMode: 0440}}
    {{- end }}
    {{- if not (include "relay.stateful" .) }}
    - {name: spool, emptyDir: {sizeLimit: 1Gi}}
    {{- else if .Values.spool.volume.existingClaim }}
    - {name: spool, persistentVolumeClaim: {claimName: {{ .Values.spool.volume.existingClaim }}}}
    {{- end }}
    {{- with .Values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" }}
  {{- with index $.Values $key }}
  {{ $key }}: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end -}}
