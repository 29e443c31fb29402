"""All three signals by OpenTelemetry's own SDK and exporters: `otlp_exporters.py grpc|http ADDRESS` prints the trace's id."""

import logging
import sys
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

kind, address = sys.argv[1:]
given: Any
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    given = [{"endpoint": address, "insecure": True}] * 3
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    given = [{"endpoint": f"{address}/v1/{name}"} for name in ("traces", "metrics", "logs")]

resource = Resource.create({"service.name": f"by-{kind}"})
tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**given[0])))
reader = PeriodicExportingMetricReader(OTLPMetricExporter(**given[1]), export_interval_millis=60_000)
meters = MeterProvider(resource=resource, metric_readers=[reader])
loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**given[2])))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(meters)
log = logging.getLogger("app")
log.addHandler(LoggingHandler(logger_provider=loggers))

meter = metrics.get_meter("app")
tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")
asked = meter.create_counter("asked")
with trace.get_tracer("app").start_as_current_span("answer") as span:
    log.error("the cache was missed")
    for side, n in (("input", 900), ("output", 80)):
        tokens.record(n, {"gen_ai.token.type": side, "gen_ai.request.model": "gpt-4o-mini", "gen_ai.provider.name": "openai"})
    asked.add(3)
    print(f"{span.get_span_context().trace_id:032x}")
for provider in (tracers, meters, loggers):
    assert provider.force_flush() in (True, None)
    provider.shutdown()
