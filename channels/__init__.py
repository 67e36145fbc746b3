"""What can be streamed: so far only sample events of the five families; declared shapes and rules come here.

Order of the files, each importing only earlier ones: demo.
"""
