"""`dynamicdps app`."""

from dynamicdps.cli.commands import App
from dynamicdps.cli.progress import say
from dynamicdps.errors import InputError


def run(arguments: App) -> None:
    try:
        from dynamicdps.app.serve import default_folder, serve
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in ("starlette", "uvicorn"):
            raise
        raise InputError(f"the page needs {missing}; expected it to be installed; run: pip install 'dynamicdps[app]'") from error
    serve(arguments.folder or default_folder(), arguments, port=arguments.port, browser=arguments.browser, say=say)
