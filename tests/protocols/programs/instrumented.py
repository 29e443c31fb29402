"""Calls an LLM through a client that an OpenTelemetry instrumentation watches: `instrumented.py WHICH EVERLOOP_URL PROVIDER_URL`."""

import os
import sys

which, url, provider = sys.argv[1:]
os.environ.update(OPENAI_API_KEY="x", OPENAI_BASE_URL=provider + "/v1", OPENAI_API_BASE=provider + "/v1")
os.environ.update(OTEL_SEMCONV_STABILITY_OPT_IN="gen_ai_latest_experimental", OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="SPAN_ONLY")

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402

traced = TracerProvider(resource=Resource.create({"service.name": which}))
traced.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url + "/v1/traces")))
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "weather", "parameters": WEATHER}}]
ASKED = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Capital of France?"}]


def with_openai():
    """A plain answer, a tool call, a stream and a refusal by the provider."""
    import openai

    chat = openai.OpenAI().chat.completions
    chat.create(model="gpt-4o-mini", messages=ASKED, temperature=0.1, max_tokens=50)
    chat.create(model="gpt-4o-mini", messages=[*ASKED, {"role": "user", "content": "call the tool"}], tools=TOOLS)
    for _ in chat.create(model="gpt-4o-mini", messages=ASKED, stream=True, stream_options={"include_usage": True}):
        pass
    try:
        chat.create(model="fail-400", messages=ASKED)
    except openai.BadRequestError:
        pass


def with_langchain():
    """A retriever, a chain of prompt and LLM, a tool."""
    from langchain_core.documents import Document
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.tools import tool
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_openai import ChatOpenAI

    @tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        return "sunny"

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents([Document("Paris is the capital"), Document("Rome")])
    store.as_retriever().invoke("capital?")
    llm = ChatOpenAI(model="gpt-4o-mini", temperature=0.1)
    (ChatPromptTemplate.from_messages([("system", "terse"), ("user", "Capital of {c}?")]) | llm).invoke({"c": "France"})
    get_weather.invoke({"city": "Paris"})


def with_llama_index():
    """A query engine: retriever, synthesis, and an LLM span within an LLM span."""
    import llama_index.core.utils
    from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.llms.openai import OpenAI

    llama_index.core.utils.set_global_tokenizer(str.split)
    Settings.tokenizer = str.split
    Settings.llm, Settings.embed_model = OpenAI(model="gpt-4o-mini", api_base=provider + "/v1"), MockEmbedding(embed_dim=8)
    VectorStoreIndex([TextNode(text="Paris is the capital")]).as_query_engine().query("capital?")


if which == "openai-v2":
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=traced)
    with_openai()
else:
    from openinference.instrumentation import using_attributes

    if which == "openai":
        from openinference.instrumentation.openai import OpenAIInstrumentor as Instrumentor
    elif which == "langchain":
        from openinference.instrumentation.langchain import LangChainInstrumentor as Instrumentor
    else:
        from openinference.instrumentation.llama_index import LlamaIndexInstrumentor as Instrumentor
    Instrumentor().instrument(tracer_provider=traced)
    with using_attributes(session_id="s1", user_id="u1"):
        {"openai": with_openai, "langchain": with_langchain, "llama-index": with_llama_index}[which]()
traced.shutdown()
