// Drives the stand-in's main routes with @gitbeaker/rest, a client that nobody here wrote, and prints what it got.
// node gitbeaker.mjs MODULES URL TOKEN PROJECT IID HOOK_URL
import { createRequire } from "module";

const [modules, host, token, project, iid, hookUrl] = process.argv.slice(2);
const { Gitlab } = createRequire(modules + "/")("@gitbeaker/rest");
const api = new Gitlab({ host, token });
const merge = Number(iid);
const got = {};

async function refused(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { status: error.cause?.response?.status, message: error.cause?.description ?? error.message };
  }
}

got.version = await api.Metadata.show();
got.me = await api.Users.showCurrentUser();
got.users = await api.Users.all({ username: got.me.username });
got.token = await api.PersonalAccessTokens.show();
got.project = await api.Projects.show(project);
got.members = await api.ProjectMembers.all(project, { includeInherited: true });
got.member = await api.ProjectMembers.show(project, got.me.id, { includeInherited: true });
got.hook = await api.ProjectHooks.add(project, hookUrl, { noteEvents: true, emojiEvents: true, token: "s3cret" });
got.hookEdited = await api.ProjectHooks.edit(project, got.hook.id, hookUrl, { mergeRequestsEvents: true });
got.hooks = await api.ProjectHooks.all(project);

got.merges = await api.MergeRequests.all({ projectId: project, state: "opened" });
got.merge = await api.MergeRequests.show(project, merge);
got.diffs = await api.MergeRequests.allDiffs(project, merge, { perPage: 1 });
got.versions = await api.MergeRequests.allDiffVersions(project, merge);
got.version1 = await api.MergeRequests.showDiffVersion(project, merge, got.versions[0].id);
got.commits = await api.MergeRequests.allCommits(project, merge);
got.reviewers = await api.MergeRequests.showReviewers(project, merge);
got.participants = await api.MergeRequests.allParticipants(project, merge);
const { base_sha: baseSha, start_sha: startSha, head_sha: headSha } = got.merge.diff_refs;
got.compare = await api.Repositories.compare(project, startSha, headSha);
got.mergeBase = await api.Repositories.mergeBase(project, [startSha, headSha]);
const raw = await api.RepositoryFiles.showRaw(project, "src/app.py", headSha);
got.raw = typeof raw === "string" ? raw : await raw.text();
got.file = await api.RepositoryFiles.show(project, "src/app.py", headSha);

const position = { baseSha, startSha, headSha, positionType: "text", oldPath: "src/app.py", newPath: "src/app.py" };
const on = (newLine) => ({ position: { ...position, newLine: String(newLine) } });
got.discussion = await api.MergeRequestDiscussions.create(project, merge, "On a line", on(2));
got.badLine = await refused(() => api.MergeRequestDiscussions.create(project, merge, "Nowhere", on(99)));
got.reply = await api.MergeRequestDiscussions.addNote(project, merge, got.discussion.id, "An answer");
got.edited = await api.MergeRequestDiscussions.editNote(
  project, merge, got.discussion.id, got.reply.id, { body: "A better answer" });
got.resolved = await api.MergeRequestDiscussions.resolve(project, merge, got.discussion.id, true);
got.draft = await api.MergeRequestDraftNotes.create(project, merge, "A draft", on(2));
got.badDraft = await api.MergeRequestDraftNotes.create(project, merge, "A lost draft", on(99));
got.drafts = await api.MergeRequestDraftNotes.all(project, merge);
await api.MergeRequestDraftNotes.publishBulk(project, merge);
got.draftsLeft = await api.MergeRequestDraftNotes.all(project, merge);
got.discussions = await api.MergeRequestDiscussions.all(project, merge);

got.note = await api.MergeRequestNotes.create(project, merge, "A summary");
got.noteEdited = await api.MergeRequestNotes.edit(project, merge, got.note.id, { body: "A new summary" });
got.notes = await api.MergeRequestNotes.all(project, merge);
got.award = await api.MergeRequestNoteAwardEmojis.award(project, merge, got.note.id, "thumbsup");
got.awardTwice = await refused(() =>
  api.MergeRequestNoteAwardEmojis.award(project, merge, got.note.id, "thumbsup"));
got.awards = await api.MergeRequestNoteAwardEmojis.all(project, merge, got.note.id);
await api.MergeRequestNoteAwardEmojis.remove(project, merge, got.note.id, got.award.id);
got.awardsLeft = await api.MergeRequestNoteAwardEmojis.all(project, merge, got.note.id);
await api.MergeRequestNotes.remove(project, merge, got.note.id);

const suggesting = "```suggestion\ntwo and a half\n```";
got.suggesting = await api.MergeRequestDiscussions.create(project, merge, suggesting, on(2));
got.applied = await api.Suggestions.edit(got.suggesting.notes[0].suggestions[0].id);

got.status = await api.Commits.editStatus(project, headSha, "success", { name: "apprentice", description: "Fine" });
got.statuses = await api.Commits.allStatuses(project, headSha);
got.approved = await api.MergeRequestApprovals.approve(project, merge);
got.approvals = await api.MergeRequestApprovals.showConfiguration(project, { mergerequestIId: merge });
got.staleApproval = await refused(() =>
  api.MergeRequestApprovals.approve(project, merge, { sha: "1".repeat(40) }));
await api.MergeRequestApprovals.unapprove(project, merge);
got.retitled = await api.MergeRequests.edit(project, merge, { title: "Draft: later" });
await api.ProjectHooks.remove(project, got.hook.id);

const group = project.split("/")[0];
got.group = await api.Groups.show(group);
got.inGroup = await api.Groups.allProjects(group, { includeSubgroups: true });
got.groupHook = await api.GroupHooks.add(group, hookUrl, { noteEvents: true });
await api.GroupHooks.edit(group, got.groupHook.id, hookUrl, { emojiEvents: true });
got.groupHookShown = await api.GroupHooks.show(group, got.groupHook.id);
got.groupHooks = await api.GroupHooks.all(group);
await api.GroupHooks.remove(group, got.groupHook.id);

got.user = await api.Users.show(got.me.id);
got.projects = await api.Projects.all({ membership: true });
got.allMerges = await api.MergeRequests.all({ scope: "all" });
got.branch = await api.Branches.show(project, "main");
got.commit = await api.Commits.show(project, headSha);
got.directMembers = await api.ProjectMembers.all(project);
got.directMember = await api.ProjectMembers.show(project, got.me.id);
got.second = await api.MergeRequests.create(project, "other", "main", "Another one");
const second = got.second.iid;
got.thread = await api.MergeRequestDiscussions.create(project, second, "A thread");
got.threadShown = await api.MergeRequestDiscussions.show(project, second, got.thread.id);
const inThread = got.thread.notes[0].id;
got.noteShown = await api.MergeRequestNotes.show(project, second, inThread);
await api.MergeRequestDiscussions.removeNote(project, second, got.thread.id, inThread);
got.accepted = await api.MergeRequests.merge(project, second);

console.log(JSON.stringify(got));
