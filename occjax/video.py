"""Poses on videos, in constant memory: reading, finding and drawing overlap."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from etils import epath

from occjax import draw, files
from occjax.errors import UserError
from occjax.evaluation import coco
from occjax.skeletons import Skeleton
from occjax.types import Poses

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

# Of frames [H, W, 3] uint8 RGB, the number of the first from 0, their people.
Finder = Callable[[Sequence[np.ndarray], int], Sequence[Poses]]


class Report(NamedTuple):
    """What came of a video."""

    frames: int
    announced: int  # how many the file says it has
    poses: int
    drawn: int  # of these
    seconds: float


class Reader:
    """Frames of a video file, upright, in their order.

    Attributes:
        path: of the file.
        rate: frames a second.
        announced: how many frames the file says it has; 0 unknown.
    """

    def __init__(self, path: epath.PathLike):
        """Opens a local file.

        Raises:
            UserError: it is no video that OpenCV can read.
        """
        self.path = epath.Path(path)
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path}: expected a video, found none that can be read.")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def read(self, count: int) -> list[np.ndarray]:
        """The next so many frames [H, W, 3] uint8 RGB, fewer at the end."""
        frames = []
        while len(frames) < count:
            there, frame = self._capture.read()
            if not there:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        return frames

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()


class Drawing(NamedTuple):
    """How poses are drawn."""

    skeleton: Skeleton
    least: float  # score of a drawn pose


def annotate(
    reader: Reader,
    target: epath.Path,
    find: Finder,
    drawing: Drawing,
    chunk: int,
    shown: Callable[[int], None],
) -> Report:
    """Writes poses.json and the video with drawings into a folder.

    Args:
        reader: of the video; it is closed.
        target: the folder.
        find: gives the people of frames.
        drawing: how to draw them.
        chunk: frames to look at together.
        shown: is told how many frames are done.

    Raises:
        UserError: the video has no frame, or its drawing cannot be written.
    """
    start, done = time.perf_counter(), 0
    with contextlib.closing(reader), ThreadPoolExecutor(2) as pool:
        frames = reader.read(chunk)
        if not frames:
            raise UserError(f"{reader.path}: this video has no frame that can be read.")
        written: Future[None] = Future()
        written.set_result(None)
        with _writing(target, reader, frames[0], drawing) as output:
            while frames:
                coming = pool.submit(reader.read, chunk)
                people = find(frames, done)
                written.result()
                written = pool.submit(output.write, frames, people, done)
                done += len(frames)
                shown(done)
                frames = coming.result()
            written.result()
    seconds = time.perf_counter() - start
    return Report(done, reader.announced, output.poses, output.drawn, seconds)


class _Output:
    """The two files that are being written."""

    def __init__(self, poses: BinaryIO, video: cv2.VideoWriter, drawing: Drawing):
        self.poses, self.drawn = 0, 0
        self._file, self._video, self._drawing = poses, video, drawing

    def write(
        self, frames: Sequence[np.ndarray], people: Sequence[Poses], first: int
    ) -> None:
        """Adds frames, the first of which has this number from 0, and their poses."""
        skeleton, least = self._drawing
        for number, (frame, poses) in enumerate(
            zip(frames, people, strict=True), first + 1
        ):
            one = Poses(*(field[None] for field in poses))
            found = coco.detections(one, [number], skeleton)
            for item in found:
                start = b",\n" if self.poses else b"[\n"
                self._file.write(start + json.dumps(item, allow_nan=False).encode())
                self.poses += 1
            panel = draw.found_panel(frame, found, skeleton, "", least)
            drawn = draw.draw_people(
                panel.image, panel.joints, panel.visibility, skeleton
            )
            self._video.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            self.drawn += len(panel.joints)

    def end(self) -> None:
        """Closes the list of poses."""
        self._file.write(b"\n]\n" if self.poses else b"[]\n")


@contextlib.contextmanager
def _writing(
    target: epath.Path, reader: Reader, frame: np.ndarray, drawing: Drawing
) -> Iterator[_Output]:
    """Both files; they get their names once they are whole."""
    path = target / f"{reader.path.stem}.mp4"
    size = frame.shape[1], frame.shape[0]
    code = cv2.VideoWriter.fourcc(*"mp4v")
    with contextlib.ExitStack() as stack:
        poses = stack.enter_context(files.writing(target / "poses.json"))
        name = stack.enter_context(files.writing_local(path))
        video = cv2.VideoWriter(name, code, reader.rate, size)
        stack.callback(video.release)  # before the file gets its name
        if not video.isOpened():
            raise UserError(f"{path}: OpenCV cannot write a video of {size} pixels.")
        output = _Output(poses, video, drawing)
        yield output
        output.end()
