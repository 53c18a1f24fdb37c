CREATE TABLE asset_hours (
	hour INTEGER NOT NULL, 
	first_id BIGINT NOT NULL, 
	last_id BIGINT NOT NULL, 
	CONSTRAINT pk_asset_hours PRIMARY KEY (hour)
);
INSERT INTO "asset_hours" VALUES(498675,1,3);
CREATE TABLE assets (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(36) NOT NULL, 
	idx INTEGER NOT NULL, 
	ordinal INTEGER NOT NULL, 
	attempt_id INTEGER NOT NULL, 
	blob_id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	mime TEXT NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	prompt TEXT NOT NULL, 
	infotext TEXT NOT NULL, 
	params TEXT NOT NULL, 
	models TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	engine TEXT NOT NULL, 
	engine_version TEXT NOT NULL, 
	gpu TEXT NOT NULL, 
	server TEXT NOT NULL, 
	original_sha256 VARCHAR(64) NOT NULL, 
	warnings TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	trashed_at DATETIME, 
	search TEXT NOT NULL, 
	CONSTRAINT uq_assets_job_id_idx_ordinal UNIQUE (job_id, idx, ordinal), 
	CONSTRAINT fk_assets_job_id FOREIGN KEY(job_id) REFERENCES requests (job_id), 
	CONSTRAINT fk_assets_attempt_id FOREIGN KEY(attempt_id) REFERENCES attempts (id), 
	CONSTRAINT fk_assets_blob_id FOREIGN KEY(blob_id) REFERENCES blobs (id)
);
INSERT INTO "assets" VALUES(1,'01a1fc24-e07e-70e3-a122-52feb6f134cb',0,0,3,1,'image','image/png',64,48,'','a black cat, Crème brûlée','a black cat
Steps: 20','{"Steps":20}','{"SDXL/Juggernaut.safetensors":"abababababababababababababababababababababababababababababababab"}','["Portrait"]',0,'forge','','','gpu-a','','[]','2026-11-21 03:27:17.686976',NULL,'juggernaut portrait a black cat creme brulee _1 _2 _3 _4 _5 _6 _7 _8');
INSERT INTO "assets" VALUES(2,'01a1fc24-e0c2-7ded-9f7c-0cc682539824',0,0,4,1,'video','video/mp4',64,48,'','a white cat','','{}','{}','[]',0,'forge','','','gpu-a','','[]','2026-11-21 03:27:17.708986',NULL,'a white cat _9 _7');
INSERT INTO "assets" VALUES(3,'01a1fc24-e0d0-7bc4-b82b-4beb55b6046d',0,0,5,2,'image','image/png',64,48,'','a thrown cat','','{}','{}','[]',0,'forge','','','gpu-a','','[]','2026-11-21 03:27:17.720731','2026-11-21 03:27:17.723815','a thrown cat _1 _7');
CREATE TABLE attempts (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(36) NOT NULL, 
	idx INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	server TEXT NOT NULL, 
	engine TEXT NOT NULL, 
	ticket TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	repeat BOOLEAN NOT NULL, 
	note TEXT NOT NULL, 
	error TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT uq_attempts_job_id_idx_attempt UNIQUE (job_id, idx, attempt), 
	CONSTRAINT fk_attempts_job_id FOREIGN KEY(job_id) REFERENCES requests (job_id)
);
INSERT INTO "attempts" VALUES(1,'01a1fc24-e046-7d9e-825b-d9f06d72678c',0,1,'gpu-a','forge','{"engine":"forge","remote_id":"remote-1","data":{"number":1}}','failed',0,'','out of memory','2026-11-21 03:27:17.587574','2026-11-21 03:27:17.597872');
INSERT INTO "attempts" VALUES(2,'01a1fc24-e073-79a7-ad1a-15a08429428d',0,1,'gpu-a','forge','{"engine":"forge","remote_id":"remote-1","data":{"number":1}}','open',0,'','','2026-11-21 03:27:17.629166','2026-11-21 03:27:17.629166');
INSERT INTO "attempts" VALUES(3,'01a1fc24-e07e-70e3-a122-52feb6f134cb',0,1,'gpu-a','forge','{"engine":"forge","remote_id":"remote-1","data":{"number":1}}','stored',0,'','','2026-11-21 03:27:17.634651','2026-11-21 03:27:17.662185');
INSERT INTO "attempts" VALUES(4,'01a1fc24-e0c2-7ded-9f7c-0cc682539824',0,1,'gpu-a','forge','{"engine":"forge","remote_id":"remote-1","data":{"number":1}}','stored',0,'','','2026-11-21 03:27:17.701161','2026-11-21 03:27:17.706337');
INSERT INTO "attempts" VALUES(5,'01a1fc24-e0d0-7bc4-b82b-4beb55b6046d',0,1,'gpu-a','forge','{"engine":"forge","remote_id":"remote-1","data":{"number":1}}','stored',0,'','','2026-11-21 03:27:17.714969','2026-11-21 03:27:17.719088');
CREATE TABLE blobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	sha256 VARCHAR(64) NOT NULL, 
	store TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mime TEXT NOT NULL, 
	refs INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT uq_blobs_sha256_store UNIQUE (sha256, store), 
	CONSTRAINT ck_blobs_refs CHECK (refs >= 0)
);
INSERT INTO "blobs" VALUES(1,'0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5','pictures','2026-11-21/0967115f2813.png',4,'image/png',2,'2026-11-21 03:27:17.685103');
INSERT INTO "blobs" VALUES(2,'3a1ff6907e78b4006803105daa7e726bb761ceba8ad439ac279bce79b3c2aaf4','pictures','2026-11-21/3a1ff6907e78.png',36,'image/png',1,'2026-11-21 03:27:17.720395');
CREATE TABLE catalogue_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT catalogue_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "catalogue_version" VALUES('0001');
CREATE TABLE facets (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind VARCHAR(16) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT uq_facets_kind_value UNIQUE (kind, value)
);
INSERT INTO "facets" VALUES(1,'kind','image');
INSERT INTO "facets" VALUES(2,'model','ababababab');
INSERT INTO "facets" VALUES(3,'model','abababababababababababababababababababababababababababababababab');
INSERT INTO "facets" VALUES(4,'model','juggernaut');
INSERT INTO "facets" VALUES(5,'model','juggernaut.safetensors');
INSERT INTO "facets" VALUES(6,'model','sdxl/juggernaut.safetensors');
INSERT INTO "facets" VALUES(7,'server','gpu-a');
INSERT INTO "facets" VALUES(8,'tag','portrait');
INSERT INTO "facets" VALUES(9,'kind','video');
CREATE TABLE outcomes (
	job_id VARCHAR(36) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	code TEXT NOT NULL, 
	message TEXT NOT NULL, 
	advice TEXT NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME NOT NULL, 
	CONSTRAINT pk_outcomes PRIMARY KEY (job_id), 
	CONSTRAINT fk_outcomes_job_id FOREIGN KEY(job_id) REFERENCES requests (job_id)
);
INSERT INTO "outcomes" VALUES('01a1fc24-e046-7d9e-825b-d9f06d72678c','failed','out_of_memory','','',NULL,'2026-11-21 03:27:17.603636');
CREATE TABLE parked (
	server TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	since DATETIME NOT NULL, 
	CONSTRAINT pk_parked PRIMARY KEY (server)
);
INSERT INTO "parked" VALUES('gpu-a','the disk is full','2026-11-21 03:27:17.729008');
CREATE TABLE request_tags (
	tag TEXT NOT NULL, 
	request_id INTEGER NOT NULL, 
	CONSTRAINT pk_request_tags PRIMARY KEY (tag, request_id), 
	CONSTRAINT fk_request_tags_request_id FOREIGN KEY(request_id) REFERENCES requests (id)
);
INSERT INTO "request_tags" VALUES('portrait',1);
INSERT INTO "request_tags" VALUES('portrait',4);
CREATE TABLE requests (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(36) NOT NULL, 
	reversed_id VARCHAR(32) NOT NULL, 
	data TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	server TEXT NOT NULL, 
	deployment TEXT NOT NULL, 
	source TEXT NOT NULL, 
	flow_run_id TEXT NOT NULL, 
	accepted_at DATETIME NOT NULL, 
	sent_at DATETIME, 
	started_at DATETIME, 
	CONSTRAINT uq_requests_job_id UNIQUE (job_id)
);
INSERT INTO "requests" VALUES(1,'01a1fc24-e01a-7a6e-a44e-67435c1a503b','b305a1c53476e44ae6a7a10e42cf1a10','{"schema_version":1,"prompt":"a waiting cat","count":3,"tags":["Portrait"]}',7,'accepted','any','generate/any','','','2026-11-21 03:27:17.532310',NULL,NULL);
INSERT INTO "requests" VALUES(2,'01a1fc24-e046-7d9e-825b-d9f06d72678c','c87627d60f9db528e9d7640e42cf1a10','{"schema_version":1,"prompt":"a failed dog","server":"gpu-a"}',7,'failed','gpu-a','generate/any','','run-1','2026-11-21 03:27:17.574281','2026-11-21 03:27:17.577908',NULL);
INSERT INTO "requests" VALUES(3,'01a1fc24-e073-79a7-ad1a-15a08429428d','d82492480a51a1da7a97370e42cf1a10','{"schema_version":1,"prompt":"an open bird","seed":9007199254740991}',7,'accepted','any','generate/any','','','2026-11-21 03:27:17.619742',NULL,NULL);
INSERT INTO "requests" VALUES(4,'01a1fc24-e07e-70e3-a122-52feb6f134cb','bc431f6bef25221a3e07e70e42cf1a10','{"schema_version":1,"prompt":"a black cat, Cr\u00e8me br\u00fbl\u00e9e","tags":["Portrait"]}',7,'accepted','any','generate/any','','','2026-11-21 03:27:17.630869',NULL,NULL);
INSERT INTO "requests" VALUES(5,'01a1fc24-e0c2-7ded-9f7c-0cc682539824','428935286cc0c7f9ded72c0e42cf1a10','{"schema_version":1,"prompt":"a white cat"}',7,'accepted','any','generate/any','','','2026-11-21 03:27:17.698830',NULL,NULL);
INSERT INTO "requests" VALUES(6,'01a1fc24-e0d0-7bc4-b82b-4beb55b6046d','d6406b55beb4b28b4cb70d0e42cf1a10','{"schema_version":1,"prompt":"a thrown cat"}',7,'accepted','any','generate/any','','','2026-11-21 03:27:17.712926',NULL,NULL);
INSERT INTO "sqlite_sequence" VALUES('requests',6);
INSERT INTO "sqlite_sequence" VALUES('attempts',5);
INSERT INTO "sqlite_sequence" VALUES('facets',9);
INSERT INTO "sqlite_sequence" VALUES('blobs',2);
INSERT INTO "sqlite_sequence" VALUES('assets',3);
CREATE INDEX ix_requests_reversed_id ON requests (reversed_id);
CREATE INDEX ix_requests_state_id ON requests (state, id);
CREATE INDEX ix_requests_server_id ON requests (server, id);
CREATE INDEX ix_requests_server_state_id ON requests (server, state, id);
CREATE INDEX ix_request_tags_request_id ON request_tags (request_id);
CREATE INDEX ix_attempts_unfinished ON attempts (state, id) WHERE state IN ('open', 'collected', 'cancelling');
CREATE INDEX ix_blobs_unused ON blobs (id) WHERE refs = 0;
CREATE INDEX ix_assets_attempt_id ON assets (attempt_id);
CREATE INDEX ix_assets_blob_id ON assets (blob_id);
CREATE INDEX ix_assets_trashed_at ON assets (trashed_at) WHERE trashed_at IS NOT NULL;
CREATE VIRTUAL TABLE asset_search USING fts5(
        search, content='assets', content_rowid='id', columnsize=0,
        prefix='1 2 3 4 5 6 7 8 9 10', tokenize="ascii tokenchars '_'"
    );
INSERT INTO asset_search(rowid, search) SELECT id, search FROM assets WHERE trashed_at IS NULL;
CREATE TRIGGER assets_search_insert AFTER INSERT ON assets WHEN new.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(rowid, search) VALUES (new.id, new.search);
    END;
CREATE TRIGGER assets_search_delete AFTER DELETE ON assets WHEN old.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(asset_search, rowid, search)
        VALUES ('delete', old.id, old.search);
    END;
CREATE TRIGGER assets_search_leave AFTER UPDATE ON assets
    WHEN old.trashed_at IS NULL AND new.trashed_at IS NOT NULL BEGIN
        INSERT INTO asset_search(asset_search, rowid, search)
        VALUES ('delete', old.id, old.search);
    END;
CREATE TRIGGER assets_search_enter AFTER UPDATE ON assets
    WHEN old.trashed_at IS NOT NULL AND new.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(rowid, search) VALUES (new.id, new.search);
    END;
CREATE TRIGGER assets_search_change AFTER UPDATE OF search ON assets
    WHEN old.trashed_at IS NULL AND new.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(asset_search, rowid, search)
        VALUES ('delete', old.id, old.search);
        INSERT INTO asset_search(rowid, search) VALUES (new.id, new.search);
    END;
