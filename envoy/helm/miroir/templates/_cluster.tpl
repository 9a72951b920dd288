{{/* How the cluster begins, as `miroir serve --config` reads it. */}}
{{- define "miroir.cluster" -}}
nodes:
{{- range $node := until (int .Values.nodes) }}
  - name: meilisearch-{{ $node }}
    url: http://meilisearch-{{ $node }}.{{ $.Release.Namespace }}.svc:7700
    {{- if $.Values.istio.enabled }}
    cluster: outbound|7700||meilisearch-{{ $node }}.{{ $.Release.Namespace }}.svc.cluster.local
    {{- end }}
{{- end }}
shards: {{ .Values.shards }}
replication: {{ .Values.replication }}
{{- with .Values.cluster }}
{{ toYaml . }}
{{- end }}
{{- end }}
