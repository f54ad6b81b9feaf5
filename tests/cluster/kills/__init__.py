# SPDX-License-Identifier: Apache-2.0
"""Components of a cluster killed and stopped while packets flow: `python -m cluster kills`.

victims   etcd, API server, kubelet, containerd, agent; how they are hurt, and how they come back
traffic   questions between pods all the time, counted one by one
crowd     pods that are made and deleted, however long the API is away
remains   what a node has: nothing may come or go
stage     the pods with the traffic, and what is looked at before and after
short     each component hurt in each way once
storm     hundreds of pods while components are hurt at random
"""
