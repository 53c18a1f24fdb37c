import json, os
from pathlib import Path
from prefect import flow
from tasks import MINE
@flow
async def theirs(folder: str) -> None:
    line = json.dumps({'what': 'theirs', 'cwd': os.getcwd(), 'mine': MINE})
    with (Path(folder) / 'notes').open('a') as file:
        file.write(line + chr(10))
