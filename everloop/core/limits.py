"""Every bound in one place: a body, a batch, a queue or a loop is limited by a name found here."""

from __future__ import annotations

BODY_BYTES = 64 * 1024 * 1024
"""Largest request body outside uploads."""
UPLOAD_BYTES = 16 * 1024 * 1024 * 1024
"""Largest object put in one request."""
UPLOAD_PARTS = 10_000
"""Parts of one upload in parts."""
UPLOADS_OPEN = 1_000
"""Uploads in parts of a project that are under way at once."""
UPLOADS_SECONDS = 86_400.0
"""An upload in parts that is not complete after this long is given up."""
PAGE_ROWS = 100
"""Rows a list answers when not told."""
PAGE_ROWS_MAX = 1000
"""Rows a list answers at most."""
BREAKDOWN_ROWS = 200
"""Keys that a breakdown of traffic has at most, the busiest."""
WRITE_QUEUE = 10_000
"""Writes waiting for the records' writer before Busy."""
WRITE_BATCH = 500
"""Writes that share one transaction."""
LOG_QUEUE_BYTES = 64 * 1024 * 1024
"""Telemetry bytes waiting for fsync before Busy."""
LOG_BACKLOG_BYTES = 4 * 1024 * 1024 * 1024
"""Telemetry bytes in the log that are not in DuckDB yet before Busy."""
LOG_FRAME_BYTES = 16 * 1024 * 1024
"""Largest single telemetry record."""
SEGMENT_BYTES = 64 * 1024 * 1024
"""A telemetry log segment is closed at this size."""
DRAIN_ROWS = 50_000
"""Telemetry rows moved into DuckDB in one transaction."""
INFER_ROWS = 100_000
"""Rows in one predict request."""
SPAN_ROWS = 1_000
"""Rows of a predict request that its span keeps; beyond, the record is written in a thread."""
CHAT_CHARS = 400_000
"""Characters in all messages and parameters of one chat request."""
LEASE_SECONDS = 30.0
"""A worker's lease on a task; its heartbeat renews it."""
TASK_ATTEMPTS = 3
"""Times a task is tried before it fails for good."""
REGEX_CHARS = 1_000
"""Length of a user's regular expression (run by RE2, linear time)."""
CSV_BYTES = 8 * 1024 * 1024 * 1024
"""Largest table read by the tabular readers."""
MANIFEST_BYTES = 8_000_000
"""Largest manifest of an asset, as JSON."""
LINEAGE_NODES = 2_000
"""Nodes that one lineage question walks at most."""
DERIVED_ROWS = 20_000_000
"""Rows that one declaration of where an output came from names at most, and runs of them that are stored."""
DERIVED_SOURCES = 200
"""Versions that one declaration names as sources at most."""
DERIVED_WHY_CHARS = 500
"""Characters of a declaration's reason."""
PART_VERSIONS = 500
"""Newest versions of a dataset in which a row or document named without a version is looked up."""
SUITE_CHUNK = 2_000
"""Rows of a predictive suite in one call."""
SUITE_PARALLEL = 8
"""Chat cases of a suite under way at once."""
SUITE_TIMED_CALLS = 200
"""Single-row calls that a predictive suite times."""
SUITE_TIMED_CALLS_MIN = 100
"""The same for a suite of few rows, which are then called again: a bound on the 95th percentile needs 59."""
OBJECT_CHUNK_ABOVE = 1024 * 1024
"""Objects larger than this are stored as content-defined chunks."""
OBJECT_CHUNK = (128 * 1024, 512 * 1024, 2 * 1024 * 1024)
"""Smallest, average and largest chunk of an object."""
PACK_BYTES = 32 * 1024 * 1024
"""Small objects and chunks are packed into files of about this size."""
PACK_ENTRIES = 100_000
"""Objects in one pack at most."""
PACK_WASTE = 0.3
"""A pack of which more than this share is unused is written anew by the garbage collector."""
OBJECTS_ASKED = 200_000
"""Digests in one question for objects."""
OBJECT_TOUCH_SECONDS = 60.0
"""An object found again counts as just written, unless it was that recently."""
OBJECT_GRACE_SECONDS = 24 * 3600.0
"""The garbage collector keeps what was written or found again within this time, referred to or not: it may be an upload under way."""
OBJECT_GRACE_MIN_SECONDS = 600.0
"""Shortest such time that one may ask for."""
OBJECT_WHOLE_BYTES = 4 * 1024 * 1024 * 1024
"""Chunked objects kept assembled for those that need a path; the longest unused go first."""
OBJECT_WHOLE_SECONDS = 3600.0
"""An assembled object is never removed sooner than this after its last use."""
MONITOR_ROWS = 200_000
"""Rows of a window that a monitor reads at most."""
METRIC_POINTS = 50_000
"""Metric points that one request may log."""
RUN_KEY_CHARS = 250
"""Length of the key of a param, tag or metric of a run."""
RUN_VALUE_CHARS = 100_000
"""Length of the value of a param or tag of a run."""
RUN_PAGE_MAX = 50_000
"""Runs that one search answers at most (the MLflow client asks for that many)."""
RUN_GROUPS = 200
"""Groups that a table of runs shows at most."""
RUN_KEYS = 2_000
"""Keys of params, of metrics and of tags that a table of runs offers as columns."""
RUNS_LOOKED_AT = 500
"""Newest runs whose keys a table of runs offers as columns."""
RUNS_CHANGED = 1_000
"""Runs that one request deletes, restores or tags."""
RUNS_EXPORTED = 20_000
"""Runs in one CSV file of a table."""
ARTIFACT_VIEW_BYTES = 16 * 1024 * 1024
"""Largest file of a run that a page reads to show it (a Parquet or Arrow file of any size: only the rows shown are read)."""
ARTIFACT_TEXT_CHARS = 200_000
"""Characters of a text file that a page shows."""
ARTIFACT_COLUMNS = 200
"""Columns of a table in a file that a page shows."""
ARTIFACT_CELL_CHARS = 500
"""Characters of a cell of such a table that a page shows."""
HISTORY_POINTS = 25_000
"""Points of a metric's history in one page when not told."""
CHART_POINTS = 10_000
"""Points of a thinned series in one answer."""
FILTER_CHARS = 10_000
"""Length of a search's filter."""
FILTER_CLAUSES = 100
"""Comparisons in a search's filter."""
TEXT_INDEX_CHARS = 16_000
"""Characters of a span's inputs, and of its outputs, that text search covers."""
TEXT_MATCHES = 10_000
"""Newest matching spans that a text search looks at."""
PREDICTIONS_MAX = 1_000_000
"""Predictions that one question to telemetry answers at most."""
SCORES_BATCH = 100_000
"""Scores or labels in one request."""
PROMPT_CHARS = 100_000
"""Characters in one message of a prompt."""
PROMPT_MESSAGES = 50
"""Messages in a prompt."""
POLICY_RULES = 100
"""Rules in a policy."""
SUITE_CASES = 10_000
"""Cases in a chat suite."""
RULE_CHARS = 500
"""Length of one requirement of a gate or monitor."""
TABLE_COLUMNS = 2_000
"""Columns of a table."""
TABLE_CELL_CHARS = 1_000_000
"""Characters in one cell of a table."""
TABLE_GROUP_ROWS = 1_000_000
"""Rows of a row group of a stored table."""
TABLE_GROUP_BYTES = 48 * 1024 * 1024
"""Bytes, in memory, after which a row group of a stored table ends: what reads one group at a time needs little more."""
TABLE_STEP_ROWS = 16_384
"""Row groups are made of steps of so many rows, so that they end at the same rows however a table arrives."""
TABLE_MEMORY_BYTES = 48 * 1024 * 1024
"""A table's file that may be read whole when it is added; a larger one goes through in batches."""
TABLE_BLOCK_BYTES = 8 * 1024 * 1024
"""Bytes of a CSV file that are parsed at a time; a row longer than that is parsed in larger blocks, up to TABLE_CELL_CHARS a cell."""
TABLE_DISTINCT = 200_000
"""Different values of a column that are counted one by one in a table that does not fit into memory; above, they are estimated."""
TABLE_WORK_MEMORY = "192MB"
"""Memory that DuckDB may use to estimate statistics and to look for repeated keys while a table is added; the rest goes to disk."""
CONTRACT_LISTED = 1_000_000
"""Violations of a contract that are listed row by row; all are counted."""
TABLE_TOP = 20
"""Most frequent values of a column that its statistics keep."""
TABLE_BINS = 20
"""Bins of a column's histogram."""
TABLE_PREVIEW_ROWS = 1_000
"""Rows of a table that one preview shows at most."""
CONTRACT_SHOWN = 100
"""Violations of a data contract that are listed by row; all are counted."""
CLASSES = 200
"""Classes of a target at most."""
TASK_RETRY_SECONDS = 2.0
"""Wait before a failed task is tried again; doubles with each attempt."""
WORK_POLL_SECONDS = 20.0
"""A worker's question for work is answered after this long at most."""
WORKER_IDLE_SECONDS = 60.0
"""A worker that the server started ends after this long without work."""
TASK_TOKEN_SECONDS = 86_400.0
"""How long a step may act as its pipeline."""
UPLOAD_FILES = 20_000
"""Files in one upload of documents."""
UPLOAD_MEMORY_BYTES = 32 * 1024 * 1024
"""A client sends files up to this size from memory (then it may try again); larger ones stream."""
PASSWORD_CHARS = (10, 1_000)
"""Shortest and longest password."""
SIGN_IN_FAILURES = 5
"""Wrong passwords for one user from one address before each next try must wait, longer each time."""
SIGN_IN_WAIT_SECONDS = 300.0
"""Longest wait after wrong passwords."""
PASSWORDS_AT_ONCE = 2
"""Passwords checked at the same time; each takes 32 MB and some 60 ms of one core."""
PASSWORDS_WAITING = 50
"""Sign-ins that wait for their check before TooMany."""
OIDC_MINUTES = 10
"""Time that a sign-in at an identity provider may take."""
OIDC_PENDING = 10_000
"""Sign-ins under way that are remembered; the oldest is forgotten first."""
OIDC_SECONDS = 10.0
"""An identity provider must answer within this."""
OIDC_ANSWER_BYTES = 1024 * 1024
"""Most that is read of an identity provider's answer."""
REFUSALS_KEPT = 200
"""Kinds of refused requests gathered in one second; the rest are counted together."""
HOME_FREE_BYTES = 64 * 1024 * 1024
"""A server does not start with less space than this on its home's disk."""
LLM_CONNECT_SECONDS = 5.0
"""Time to connect to an LLM provider."""
LLM_FIRST_BYTE_SECONDS = 120.0
"""Time until a provider's answer begins, and between two pieces of a stream."""
LLM_ATTEMPTS = 3
"""Times one request is sent to a provider."""
LLM_RETRY_SECONDS = 0.5
"""First pause before a provider is asked again; it doubles."""
LLM_RETRY_MAX_SECONDS = 10.0
"""A provider that asks for a longer pause is not asked again; the client is told when to come back."""
LLM_ANSWER_BYTES = 32 * 1024 * 1024
"""Largest answer of a provider."""
OVERVIEW_ENDPOINTS = 24
"""Endpoints that the overview shows with their figures."""
SEARCH_HITS = 20
"""Hits of each sort that the search over everything answers."""
SERIES_BUCKETS = 60
"""Buckets of a series over time, about."""
DECLARATIONS = 500
"""Things that one apply may declare."""
DOCUMENTS = 20_000
"""Files in one dataset of documents."""
DOCUMENT_BYTES = 64 * 1024 * 1024
"""Largest single document that is read."""
DOCUMENT_CHARS = 10_000_000
"""Characters of text in one document."""
DOCUMENTS_CHARS = 500_000_000
"""Characters of text in one dataset of documents."""
PDF_PAGES = 5_000
"""Pages of one PDF."""
PDF_SECONDS = 120.0
"""Reading one PDF stops after this long."""
CHUNK_CHARS = (100, 20_000)
"""Shortest and longest size of a passage, in characters."""
DOCUMENTS_PAGE_CHARS = 8_000_000
"""Characters of document texts in one answer; the rest is on the next page."""
QUERY_CHARS = 10_000
"""Characters of a question that retrieval looks at."""
QUERY_TERMS = 256
"""Distinct terms of a question that retrieval looks at; the most frequent stay."""
RETRIEVE_MAX = 1_000
"""Passages that one search answers at most."""
TRY_CHARS = 20_000
"""Characters of a question that the form on an endpoint's page sends."""
REASON_CHARS = 2_000
"""Characters of the reason of an approval or rejection."""
TRAIN_ROWS_MIN = 50
"""Labelled rows that training needs at least."""
TRAIN_CLASS_ROWS_MIN = 8
"""Rows of the rarer class that training a binary model needs at least."""
TRAIN_TREES = 200
"""Trees of gradient boosting at most; validation chooses how many."""
LEAK_ROWS = 4_000
"""Rows looked at to see whether one column tells the target."""
LEAK_COLUMNS = 300
"""Columns looked at for that."""
IMPORTANCE_ROWS = 2_000
"""Rows on which a feature's importance is measured."""
FINDINGS_SHOWN = 5
"""Findings of a validation that its sentence tells; all are kept with the run."""
GUARD_WINDOW_CHARS = 256
"""Characters of a streamed answer that a policy holds back under `window` at most; a pattern up to GUARD_STEP_CHARS shorter is caught whole."""
GUARD_STEP_CHARS = 64
"""Characters that a streamed answer grows by before it is checked again under `window`."""
GUARD_THREAD_CHARS = 8_000
"""A text longer than this is checked in a thread, so that it keeps no other call waiting."""
GUARD_TURN_TEXTS = 64
"""Texts of one call that a rule judges before other calls get a turn."""
HISTORY_CHARS = 40_000
"""Characters of the turns before that a prompt's `history` shows; older turns go first."""
INGEST_FILES = 5_000
"""Files of a folder that one dataset is loaded from."""
INGEST_ROWS = 10_000_000
"""Rows that one SQL query may load."""
SCORE_CHUNK = 2_000
"""Rows that batch scoring sends in one call."""
SCORE_REFUSED_SHOWN = 20
"""Rows that batch scoring could not take and names in its result; all are kept with the run."""
EMBED_TEXTS = 2_048
"""Texts that one request embeds."""
SILHOUETTE_ROWS = 2_000
"""Rows over which a silhouette is taken: its cost grows with their square."""
CLUSTERS_MAX = 50
"""Clusters that a model may find."""
INDEX_PREVIEW_ROWS = 50
"""Passages of an index that one look shows at most."""
INDEXES_KEPT = 3
"""Indexes that were searched directly, without an endpoint, and stay in memory."""
DIFF_MEMORY = "512MB"
"""Memory that a comparison of two tables may use; the rest goes to disk."""
DIFF_PART_BYTES = 64 * 1024 * 1024
"""Bytes of a version, unpacked, that are compared at once; larger versions are cut by a hash of their keys first, on disk."""
DIFF_PARTS = 256
"""Parts that two tables are cut into to be compared, at most."""
DIFF_ROWS_SHOWN = 100
"""Example rows of each sort that a comparison of two tables shows at most."""
DIFF_FILES_SHOWN = 1_000
"""Files of each sort that a comparison of two versions lists; all are counted."""
DIFF_CELL_CHARS = 200
"""Characters of a cell that a comparison shows."""
VERSIONS_LISTED = 200_000
"""Versions of models and prompts that one search of the registry looks at, newest first: as many as MLflow's own answers at most."""
TRACE_LINKS = 100
"""Traces that one call may link to a run."""
SEEN_TRACES = 50_000
"""Trace ids that the server remembers to have had spans of, to tell a client at once that it need not upload them as a file."""
EVAL_RECORDS = 100_000
"""Records of one evaluation data set of MLflow's clients."""
TREE_PATH_CHARS = 4_096
"""Length of a path in a dataset of files."""
TREE_FILES = 5_000_000
"""Files in one dataset."""
TREE_PAGE = 1_000
"""Files that one page of a dataset's list holds at most."""
FETCH_OBJECTS = 100_000
"""Objects that one request fetches."""
FILE_CACHE_ROWS = 5_000_000
"""Files whose digests a client remembers; then it begins anew."""
FETCH_BYTES = 256 * 1024
"""Small objects leave together in pieces of about this size."""
BUCKET_PART_BYTES = 8 * 1024 * 1024
"""Files larger than this go to a bucket in parts of this size."""
BUCKET_RETRIES = 5
"""Times a request to a bucket is tried again."""
BUCKET_RETRY_SECONDS = 60.0
"""... within this time."""
BUCKET_SEEN_SECONDS = 30.0
"""What another process put into a bucket is looked for after this long."""
PIN_CHARS = 10_000
"""Characters that are read of a pin's file."""
SPLIT_PARTS = 100
"""Named splits of one dataset."""
VERIFY_SHOWN = 1_000
"""Damaged objects that a verification lists; all are counted."""
DATASET_MEMORY_BYTES = 256 * 1024 * 1024
"""A client reads a table's file up to this size from memory; a larger one is kept in its cache folder first."""
DATASET_CACHE_BYTES = 20 * 1024 * 1024 * 1024
"""Datasets that a client keeps in its cache folder; the longest unused go first."""
QUEUE_ITEMS = 20_000
"""Rows, documents or traces of one annotation queue."""
QUEUE_TEXT_CHARS = 20_000
"""Characters of a text that an annotator is shown; the rest is cut, and that is said."""
QUEUE_QUESTIONS = 20
"""Questions of a rubric."""
QUEUE_CLASSES = 50
"""Classes of one question of a rubric."""
QUEUE_CLAIM_SECONDS = 900.0
"""How long an item that an annotator is looking at is kept from others, in seconds."""
LABEL_CHARS = 4_000
"""Characters of a free text or comment of a label."""
ISOLATED_START_SECONDS = 120.0
"""Time that a model in a process of its own has to load."""
ISOLATED_ANSWER_SECONDS = 25.0
"""Time that it has to answer one batch."""
IMPORT_MARKS = 200_000
"""Runs, models and versions of one source that an import notes as brought."""
WEBHOOKS = 100
"""Webhooks of a project."""
WEBHOOK_DELIVERIES = 10_000
"""Deliveries of a project that wait, before a change that would add one is Busy."""
WEBHOOK_ATTEMPTS = 8
"""Times a delivery is tried."""
WEBHOOK_WAIT_SECONDS = 300.0
"""Longest pause before a delivery is tried again; pauses start at a second and double."""
WEBHOOK_SECONDS = 30.0
"""A webhook must answer within this."""
WEBHOOK_PARALLEL = 16
"""Deliveries under way at once."""
WEBHOOK_ANSWER_BYTES = 10_000
"""Most that is read of a webhook's answer."""

REDACT_FEATURES = 200
"""Names of features that a project's redaction drops, or hashes, at most."""
REDACT_TRY_CHARS = 200_000
"""Characters of a text that a redaction is tried on."""
ARCHIVE_ROW_GROUP = 20_000
"""Rows of a row group of an archive's Parquet file."""
ARCHIVE_ZSTD = 6
"""Compression level of an archive's files."""
RETENTION_RULES = 50
"""Rules of a project's retention."""
RETENTION_TRACES = 2_000
"""Traces that one step of a retention run moves or deletes."""
RETENTION_ROWS = 50_000
"""Spans of those traces, unless one trace alone has more."""
RETENTION_EVERY_SECONDS = 600.0
"""How often the server looks whether traces have become older than a rule says."""
RETENTION_PAUSE_SECONDS = 0.02
"""Pause between two steps, so that what is sent and asked meanwhile goes first."""
ERASE_ID_CHARS = 1_000
"""Characters of the id of a user or session that is erased."""
ERASE_WHY_CHARS = 500
"""Characters of an erasure's reason."""
ERASE_SHOWN = 100
"""Receipts that are listed, and files that a receipt names."""
ERASE_NEEDLES = 500
"""Ids that are looked for in files at once."""
ERASE_TABLE_BYTES = 1024 * 1024 * 1024
"""Size up to which a dataset's file is looked into for rows of traces that are erased."""
ARCHIVE_ORPHAN_SECONDS = 3600.0
"""Age from which a file of the archive that nothing lists is deleted."""
ARCHIVE_PARTS = 8
"""Parts of the archive that a list reads at first; twice as many each time they are not enough."""
EXPORT_ROWS = 2_000_000
"""Rows of one export of traces."""
EXPORT_COLUMNS = 2_000
"""Columns of an export as a table."""
EXPORT_IDS = 10_000
"""Traces that an export, or another action, names one by one."""
ACTION_TRACES = 5_000
"""Traces that one bulk action takes."""
REPLAY_TRACES = 200
"""Traces that one replay asks again."""
TAIL_STREAMS = 50
"""Streams of traces that are watched at once."""
TAIL_ROWS = 500
"""Traces that one look of such a stream reads; in busier times the newest are shown."""
TAIL_BACK_SECONDS = 120.0
"""How long ago a trace that such a stream shows may have begun."""
INGEST_BYTES = 512 * 1024 * 1024
"""Memory that OTLP requests under way may take, as reckoned by their size, before Busy; one alone may take more."""
INGEST_FACTOR = 6
"""Bytes of memory that a byte of an OTLP request takes while it is decoded and written."""
OTLP_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message over OTLP/gRPC."""
OTLP_CALLS = 256
"""Calls over OTLP/gRPC under way at once."""
OTEL_POINTS = 500_000
"""Metric points that one question reads at most."""
OTEL_NAMES = 2_000
"""Names of metrics that a list has at most."""
OTEL_BUCKETS = 2_000
"""Times in one series of a metric at most."""
TRACE_LOGS = 5_000
"""Log records that a trace is shown with at most, the oldest."""
SAVED_VIEWS = 200
"""Saved views of the table of traces that a project may have."""
VIEW_CHARS = 4_000
"""Characters of a saved view's query."""
TRACE_BUCKETS = 80
"""Bars of the histogram over the table of traces at most."""
COMPLETIONS = 12
"""What the filter line of traces offers at once."""
TAIL_ROWS = 200
"""Rows that a live tail keeps on the page."""
JUDGES_MAX = 20
"""Online judges of a project."""
JUDGE_CHECKS = 10
"""Checks of one."""
JUDGE_CHARS = 20_000
"""Characters of a question, an answer or a source that an LLM is given to judge."""
JUDGE_LOOK = 20_000
"""Traces that one look of a judge finds at most."""
JUDGE_BACKLOG = 500
"""Sampled traces that may wait for a judge; older ones are dropped and counted."""
JUDGE_PARALLEL = 4
"""Traces that a judge judges at once."""
JUDGE_SETTLE_SECONDS = 3.0
"""How long after a trace came it is judged, so that its other spans are there."""
