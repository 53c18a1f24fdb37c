CREATE TABLE public.asset_hours (
    hour bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL
);
CREATE TABLE public.assets (
    id bigint NOT NULL,
    job_id character varying(36) NOT NULL COLLATE pg_catalog."C",
    idx integer NOT NULL,
    ordinal integer NOT NULL,
    attempt_id bigint NOT NULL,
    blob_id bigint NOT NULL,
    kind character varying(16) NOT NULL,
    mime text NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    name text NOT NULL,
    prompt text NOT NULL,
    infotext text NOT NULL,
    params text NOT NULL,
    models text NOT NULL,
    tags text NOT NULL,
    seed bigint NOT NULL,
    engine text NOT NULL,
    engine_version text NOT NULL,
    gpu text NOT NULL,
    server text NOT NULL,
    original_sha256 character varying(64) NOT NULL COLLATE pg_catalog."C",
    warnings text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    trashed_at timestamp with time zone,
    search tsvector NOT NULL
);
ALTER TABLE ONLY public.assets ALTER COLUMN search SET STATISTICS 1000;
CREATE SEQUENCE public.assets_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.assets_id_seq OWNED BY public.assets.id;
CREATE TABLE public.attempts (
    id bigint NOT NULL,
    job_id character varying(36) NOT NULL COLLATE pg_catalog."C",
    idx integer NOT NULL,
    attempt integer NOT NULL,
    server text NOT NULL,
    engine text NOT NULL,
    ticket text NOT NULL,
    state character varying(16) NOT NULL,
    repeat boolean NOT NULL,
    note text NOT NULL,
    error text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE SEQUENCE public.attempts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.attempts_id_seq OWNED BY public.attempts.id;
CREATE TABLE public.blobs (
    id bigint NOT NULL,
    sha256 character varying(64) NOT NULL COLLATE pg_catalog."C",
    store text NOT NULL,
    key text NOT NULL,
    size bigint NOT NULL,
    mime text NOT NULL,
    refs integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT ck_blobs_refs CHECK ((refs >= 0))
);
CREATE SEQUENCE public.blobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.blobs_id_seq OWNED BY public.blobs.id;
CREATE TABLE public.catalogue_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.facets (
    id bigint NOT NULL,
    kind character varying(16) NOT NULL,
    value text NOT NULL
);
CREATE SEQUENCE public.facets_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.facets_id_seq OWNED BY public.facets.id;
CREATE TABLE public.outcomes (
    job_id character varying(36) NOT NULL COLLATE pg_catalog."C",
    state character varying(16) NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    advice text NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL
);
CREATE TABLE public.parked (
    server text NOT NULL,
    reason text NOT NULL,
    since timestamp with time zone NOT NULL
);
CREATE TABLE public.request_tags (
    tag text NOT NULL,
    request_id bigint NOT NULL
);
CREATE TABLE public.requests (
    id bigint NOT NULL,
    job_id character varying(36) NOT NULL COLLATE pg_catalog."C",
    reversed_id character varying(32) NOT NULL COLLATE pg_catalog."C",
    data text NOT NULL,
    seed bigint NOT NULL,
    state character varying(16) NOT NULL,
    server text NOT NULL,
    deployment text NOT NULL,
    source text NOT NULL,
    flow_run_id text NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    sent_at timestamp with time zone,
    started_at timestamp with time zone
);
CREATE SEQUENCE public.requests_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.requests_id_seq OWNED BY public.requests.id;
ALTER TABLE ONLY public.assets ALTER COLUMN id SET DEFAULT nextval('public.assets_id_seq'::regclass);
ALTER TABLE ONLY public.attempts ALTER COLUMN id SET DEFAULT nextval('public.attempts_id_seq'::regclass);
ALTER TABLE ONLY public.blobs ALTER COLUMN id SET DEFAULT nextval('public.blobs_id_seq'::regclass);
ALTER TABLE ONLY public.facets ALTER COLUMN id SET DEFAULT nextval('public.facets_id_seq'::regclass);
ALTER TABLE ONLY public.requests ALTER COLUMN id SET DEFAULT nextval('public.requests_id_seq'::regclass);
INSERT INTO public.asset_hours VALUES (498675, 1, 3);
INSERT INTO public.assets VALUES (1, '01a1fc24-e2b8-78bc-9c09-1572d3cff5fc', 0, 0, 3, 1, 'image', 'image/png', 64, 48, '', 'a black cat, Crème brûlée', 'a black cat
Steps: 20', '{"Steps":20}', '{"SDXL/Juggernaut.safetensors":"abababababababababababababababababababababababababababababababab"}', '["Portrait"]', 0, 'forge', '', '', 'gpu-a', '', '[]', '2026-11-21 03:27:18.288164+00', NULL, '''_1'' ''_2'' ''_3'' ''_4'' ''_5'' ''_6'' ''_7'' ''_8'' ''a'':3 ''black'':4 ''brulee'':7 ''cat'':5 ''creme'':6 ''juggernaut'':1 ''portrait'':2');
INSERT INTO public.assets VALUES (2, '01a1fc24-e31b-7071-af98-a1f7e9a8a4a1', 0, 0, 4, 1, 'video', 'video/mp4', 64, 48, '', 'a white cat', '', '{}', '{}', '[]', 0, 'forge', '', '', 'gpu-a', '', '[]', '2026-11-21 03:27:18.350519+00', NULL, '''_7'' ''_9'' ''a'':1 ''cat'':3 ''white'':2');
INSERT INTO public.assets VALUES (3, '01a1fc24-e35a-782e-bda5-81ff33b295ae', 0, 0, 5, 2, 'image', 'image/png', 64, 48, '', 'a thrown cat', '', '{}', '{}', '[]', 0, 'forge', '', '', 'gpu-a', '', '[]', '2026-11-21 03:27:18.412485+00', '2026-11-21 03:27:18.416088+00', '''_1'' ''_7'' ''a'':1 ''cat'':3 ''thrown'':2');
INSERT INTO public.attempts VALUES (1, '01a1fc24-e285-7adb-8de5-47bdfac1f0b1', 0, 1, 'gpu-a', 'forge', '{"engine":"forge","remote_id":"remote-1","data":{"number":1}}', 'failed', false, '', 'out of memory', '2026-11-21 03:27:18.164815+00', '2026-11-21 03:27:18.167215+00');
INSERT INTO public.attempts VALUES (2, '01a1fc24-e2af-735f-a24f-77ae604ab38c', 0, 1, 'gpu-a', 'forge', '{"engine":"forge","remote_id":"remote-1","data":{"number":1}}', 'open', false, '', '', '2026-11-21 03:27:18.194654+00', '2026-11-21 03:27:18.194654+00');
INSERT INTO public.attempts VALUES (3, '01a1fc24-e2b8-78bc-9c09-1572d3cff5fc', 0, 1, 'gpu-a', 'forge', '{"engine":"forge","remote_id":"remote-1","data":{"number":1}}', 'stored', false, '', '', '2026-11-21 03:27:18.214642+00', '2026-11-21 03:27:18.264865+00');
INSERT INTO public.attempts VALUES (4, '01a1fc24-e31b-7071-af98-a1f7e9a8a4a1', 0, 1, 'gpu-a', 'forge', '{"engine":"forge","remote_id":"remote-1","data":{"number":1}}', 'stored', false, '', '', '2026-11-21 03:27:18.305698+00', '2026-11-21 03:27:18.340595+00');
INSERT INTO public.attempts VALUES (5, '01a1fc24-e35a-782e-bda5-81ff33b295ae', 0, 1, 'gpu-a', 'forge', '{"engine":"forge","remote_id":"remote-1","data":{"number":1}}', 'stored', false, '', '', '2026-11-21 03:27:18.371117+00', '2026-11-21 03:27:18.402813+00');
INSERT INTO public.blobs VALUES (1, '0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5', 'pictures', '2026-11-21/0967115f2813.png', 4, 'image/png', 2, '2026-11-21 03:27:18.285671+00');
INSERT INTO public.blobs VALUES (2, '056d298c22145de168d0232f2f52c1d043225245f96b83acb92dcc0a534d2c3c', 'pictures', '2026-11-21/056d298c2214.png', 36, 'image/png', 1, '2026-11-21 03:27:18.411724+00');
INSERT INTO public.catalogue_version VALUES ('0001');
INSERT INTO public.facets VALUES (1, 'kind', 'image');
INSERT INTO public.facets VALUES (2, 'model', 'ababababab');
INSERT INTO public.facets VALUES (3, 'model', 'abababababababababababababababababababababababababababababababab');
INSERT INTO public.facets VALUES (4, 'model', 'juggernaut');
INSERT INTO public.facets VALUES (5, 'model', 'juggernaut.safetensors');
INSERT INTO public.facets VALUES (6, 'model', 'sdxl/juggernaut.safetensors');
INSERT INTO public.facets VALUES (7, 'server', 'gpu-a');
INSERT INTO public.facets VALUES (8, 'tag', 'portrait');
INSERT INTO public.facets VALUES (9, 'kind', 'video');
INSERT INTO public.outcomes VALUES ('01a1fc24-e285-7adb-8de5-47bdfac1f0b1', 'failed', 'out_of_memory', '', '', NULL, '2026-11-21 03:27:18.184443+00');
INSERT INTO public.parked VALUES ('gpu-a', 'the disk is full', '2026-11-21 03:27:18.421914+00');
INSERT INTO public.request_tags VALUES ('portrait', 1);
INSERT INTO public.request_tags VALUES ('portrait', 4);
INSERT INTO public.requests VALUES (1, '01a1fc24-e240-7539-82be-e743b577c0d0', '0d0c775b347eeb289357042e42cf1a10', '{"schema_version":1,"prompt":"a waiting cat","count":3,"tags":["Portrait"]}', 7, 'accepted', 'any', 'generate/any', '', '', '2026-11-21 03:27:18.109674+00', NULL, NULL);
INSERT INTO public.requests VALUES (2, '01a1fc24-e285-7adb-8de5-47bdfac1f0b1', '1b0f1cafdb745ed8bda7582e42cf1a10', '{"schema_version":1,"prompt":"a failed dog","server":"gpu-a"}', 7, 'failed', 'gpu-a', 'generate/any', '', 'run-1', '2026-11-21 03:27:18.14979+00', '2026-11-21 03:27:18.159186+00', NULL);
INSERT INTO public.requests VALUES (3, '01a1fc24-e2af-735f-a24f-77ae604ab38c', 'c83ba406ea77f42af537fa2e42cf1a10', '{"schema_version":1,"prompt":"an open bird","seed":9007199254740991}', 7, 'accepted', 'any', 'generate/any', '', '', '2026-11-21 03:27:18.1914+00', NULL, NULL);
INSERT INTO public.requests VALUES (4, '01a1fc24-e2b8-78bc-9c09-1572d3cff5fc', 'cf5ffc3d275190c9cb878b2e42cf1a10', '{"schema_version":1,"prompt":"a black cat, Cr\u00e8me br\u00fbl\u00e9e","tags":["Portrait"]}', 7, 'accepted', 'any', 'generate/any', '', '', '2026-11-21 03:27:18.200826+00', NULL, NULL);
INSERT INTO public.requests VALUES (5, '01a1fc24-e31b-7071-af98-a1f7e9a8a4a1', '1a4a8a9e7f1a89fa1707b13e42cf1a10', '{"schema_version":1,"prompt":"a white cat"}', 7, 'accepted', 'any', 'generate/any', '', '', '2026-11-21 03:27:18.299892+00', NULL, NULL);
INSERT INTO public.requests VALUES (6, '01a1fc24-e35a-782e-bda5-81ff33b295ae', 'ea592b33ff185adbe287a53e42cf1a10', '{"schema_version":1,"prompt":"a thrown cat"}', 7, 'accepted', 'any', 'generate/any', '', '', '2026-11-21 03:27:18.362737+00', NULL, NULL);
SELECT pg_catalog.setval('public.assets_id_seq', 3, true);
SELECT pg_catalog.setval('public.attempts_id_seq', 5, true);
SELECT pg_catalog.setval('public.blobs_id_seq', 2, true);
SELECT pg_catalog.setval('public.facets_id_seq', 9, true);
SELECT pg_catalog.setval('public.requests_id_seq', 6, true);
ALTER TABLE ONLY public.catalogue_version
    ADD CONSTRAINT catalogue_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.asset_hours
    ADD CONSTRAINT pk_asset_hours PRIMARY KEY (hour);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT pk_assets PRIMARY KEY (id);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT pk_attempts PRIMARY KEY (id);
ALTER TABLE ONLY public.blobs
    ADD CONSTRAINT pk_blobs PRIMARY KEY (id);
ALTER TABLE ONLY public.facets
    ADD CONSTRAINT pk_facets PRIMARY KEY (id);
ALTER TABLE ONLY public.outcomes
    ADD CONSTRAINT pk_outcomes PRIMARY KEY (job_id);
ALTER TABLE ONLY public.parked
    ADD CONSTRAINT pk_parked PRIMARY KEY (server);
ALTER TABLE ONLY public.request_tags
    ADD CONSTRAINT pk_request_tags PRIMARY KEY (tag, request_id);
ALTER TABLE ONLY public.requests
    ADD CONSTRAINT pk_requests PRIMARY KEY (id);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT uq_assets_job_id_idx_ordinal UNIQUE (job_id, idx, ordinal);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT uq_attempts_job_id_idx_attempt UNIQUE (job_id, idx, attempt);
ALTER TABLE ONLY public.blobs
    ADD CONSTRAINT uq_blobs_sha256_store UNIQUE (sha256, store);
ALTER TABLE ONLY public.facets
    ADD CONSTRAINT uq_facets_kind_value UNIQUE (kind, value);
ALTER TABLE ONLY public.requests
    ADD CONSTRAINT uq_requests_job_id UNIQUE (job_id);
CREATE INDEX ix_assets_attempt_id ON public.assets USING btree (attempt_id);
CREATE INDEX ix_assets_blob_id ON public.assets USING btree (blob_id);
CREATE INDEX ix_assets_search ON public.assets USING gin (search) WITH (fastupdate=off);
CREATE INDEX ix_assets_trashed_at ON public.assets USING btree (trashed_at) WHERE (trashed_at IS NOT NULL);
CREATE INDEX ix_attempts_unfinished ON public.attempts USING btree (state, id) WHERE ((state)::text = ANY ((ARRAY['open'::character varying, 'collected'::character varying, 'cancelling'::character varying])::text[]));
CREATE INDEX ix_blobs_unused ON public.blobs USING btree (id) WHERE (refs = 0);
CREATE INDEX ix_request_tags_request_id ON public.request_tags USING btree (request_id);
CREATE INDEX ix_requests_reversed_id ON public.requests USING btree (reversed_id);
CREATE INDEX ix_requests_server_id ON public.requests USING btree (server, id);
CREATE INDEX ix_requests_server_state_id ON public.requests USING btree (server, state, id);
CREATE INDEX ix_requests_state_id ON public.requests USING btree (state, id);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT fk_assets_attempt_id FOREIGN KEY (attempt_id) REFERENCES public.attempts(id);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT fk_assets_blob_id FOREIGN KEY (blob_id) REFERENCES public.blobs(id);
ALTER TABLE ONLY public.assets
    ADD CONSTRAINT fk_assets_job_id FOREIGN KEY (job_id) REFERENCES public.requests(job_id);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT fk_attempts_job_id FOREIGN KEY (job_id) REFERENCES public.requests(job_id);
ALTER TABLE ONLY public.outcomes
    ADD CONSTRAINT fk_outcomes_job_id FOREIGN KEY (job_id) REFERENCES public.requests(job_id);
ALTER TABLE ONLY public.request_tags
    ADD CONSTRAINT fk_request_tags_request_id FOREIGN KEY (request_id) REFERENCES public.requests(id);
